//! Space that is kept for the time when there is none.
//!
//! Removing a file of a committed version takes space: the overlay notes what is gone. So on a full disk nothing could be
//! removed. A file of some size is kept allocated beside the layers; when free space runs out it is given up, and made
//! again when there is space. Whoever filled the disk has then had his error, and what became free is there to remove
//! files with, and to commit that.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Whiteouts for some thousands of files.
const SIZE: u64 = 16 << 20;

/// What counts as no space. Several small files, or some blocks of directories, still fit.
const LOW: u64 = 2 << 20;

/// How often is looked whether there is space.
const PAUSE: Duration = Duration::from_millis(500);

/// A reserve in one directory.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    size: u64,
    held: Mutex<bool>,
    /// How much was free when that was looked at last.
    free: Mutex<Option<u64>>,
}

impl Reserve {
    /// Makes the reserve if there is space for it.
    pub(crate) fn open(directory: &Path, size: u64) -> Reserve {
        let reserve = Reserve {
            path: directory.join("reserve"),
            size,
            held: Mutex::new(false),
            free: Mutex::new(None),
        };
        reserve.tend();
        reserve
    }

    /// Makes the reserve, and looks after it as long as it is used.
    pub(crate) fn looked_after(directory: &Path) -> Arc<Reserve> {
        let reserve = Arc::new(Reserve::open(directory, SIZE));
        let used = Arc::downgrade(&reserve);
        let look = move || {
            while let Some(reserve) = used.upgrade() {
                reserve.tend();
                drop(reserve);
                std::thread::sleep(PAUSE);
            }
        };
        // Without a thread, a take that finds no space still gives it up.
        if let Err(error) = std::thread::Builder::new().name("reserve".into()).spawn(look) {
            tracing::warn!(%error, "nobody looks whether the disk is full");
        }
        reserve
    }

    /// Gives the space up if there is no other, or takes it again if there is enough. To be called every now and then.
    ///
    /// As long as free space still becomes less, somebody is writing, and would take what is given up as well.
    pub(crate) fn tend(&self) {
        let Some(free) = self.free_bytes() else { return };
        let before = self.free.lock().unwrap_or_else(PoisonError::into_inner).replace(free);
        if free < LOW {
            if before == Some(free) {
                self.give_up();
            }
        } else if free >= 2 * self.size + LOW {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if !*held {
                match self.allocate() {
                    Ok(()) => *held = true,
                    Err(error) => {
                        tracing::debug!(%error, "no space is kept for removing files on a full disk")
                    }
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

    fn free_bytes(&self) -> Option<u64> {
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
