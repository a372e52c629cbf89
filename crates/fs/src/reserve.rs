//! Space that is kept for the time when there is none.
//!
//! Removing a file of a committed version takes space: the overlay notes what is gone. So on a full disk nothing could be
//! removed. A file of some size is kept allocated beside the layers; when free space runs out it is given up, and made
//! again when there is space. Whoever filled the disk has then had his error, and what became free is there to remove
//! files with, and to commit that.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Whiteouts for some thousands of files.
pub(crate) const SIZE: u64 = 16 << 20;

/// What counts as no space. Several small files, or some blocks of directories, still fit.
const LOW: u64 = 2 << 20;

/// A reserve in one directory.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    size: u64,
    held: Mutex<bool>,
}

impl Reserve {
    /// Makes the reserve if there is space for it.
    pub(crate) fn open(directory: &Path, size: u64) -> Reserve {
        let reserve = Reserve { path: directory.join("reserve"), size, held: Mutex::new(false) };
        reserve.tend();
        reserve
    }

    /// Gives the space up if there is no other, or takes it again if there is enough. To be called every now and then.
    pub(crate) fn tend(&self) {
        let Some(free) = self.free() else { return };
        if free < LOW {
            self.give_up();
        } else if free >= 2 * self.size + LOW {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if !*held {
                match self.allocate() {
                    Ok(()) => *held = true,
                    Err(error) => tracing::debug!(%error, "no space is kept for removing files on a full disk"),
                }
            }
        }
    }

    /// Gives the space up. Says whether there was any.
    pub(crate) fn give_up(&self) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match fs::remove_file(&self.path) {
            Ok(()) => {
                *held = false;
                tracing::warn!(
                    bytes = self.size,
                    path = %self.path.display(),
                    "the disk is full: the space that was kept for removing files is given up"
                );
                true
            }
            Err(_) => false,
        }
    }

    fn free(&self) -> Option<u64> {
        let about = statvfs(self.path.parent()?).ok()?;
        // The overlay writes with the rights of root, for whom all of it is free.
        Some(about.f_bfree.saturating_mul(about.f_frsize))
    }

    fn allocate(&self) -> io::Result<()> {
        let file = File::options().create(true).truncate(false).write(true).open(&self.path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, self.size) {
            Ok(()) => Ok(()),
            Err(errno) => {
                let _ = fs::remove_file(&self.path);
                Err(errno.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_kept_until_it_is_given_up_and_then_kept_again() {
        let directory = tempfile::tempdir().unwrap();
        let reserve = Reserve::open(directory.path(), 1 << 20);
        let path = directory.path().join("reserve");
        let kept = || {
            use std::os::unix::fs::MetadataExt;
            fs::metadata(&path).map_or(0, |about| about.blocks() * 512)
        };
        assert!(kept() >= 1 << 20);
        assert!(reserve.give_up());
        assert_eq!(kept(), 0);
        assert!(!reserve.give_up());
        reserve.tend();
        assert!(kept() >= 1 << 20);
    }
}
