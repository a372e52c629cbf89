//! Space that is kept for the time when there is none.
//!
//! Removing a file of a committed version takes space: the overlay notes what is gone. So on a full disk nothing could be
//! removed. A file of some size is kept allocated beside the layers; when free space runs out it is given up, and made
//! again when there is space. Whoever filled the disk has then had his error, and what became free is there to remove
//! files with, and to commit that.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Whiteouts for some thousands of files.
const SIZE: u64 = 16 << 20;

/// What counts as no space, if it cannot be had: some blocks of directories.
const LOW: u64 = 64 << 10;

/// How often is looked whether there is space.
const PAUSE: Duration = Duration::from_millis(500);

/// A reserve in one directory.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    size: u64,
    held: Mutex<bool>,
    /// There was no space when that was looked at last.
    was_full: AtomicBool,
}

impl Reserve {
    /// Makes the reserve if there is space for it.
    pub(crate) fn open(directory: &Path, size: u64) -> Reserve {
        let reserve = Reserve {
            path: directory.join("reserve"),
            size,
            held: Mutex::new(false),
            was_full: AtomicBool::new(false),
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
    /// It is given up the second time that there is none: before, whoever fills the disk may still be about to hear it,
    /// and would take what is given up as well.
    pub(crate) fn tend(&self) {
        let Some(free) = self.free_bytes() else { return };
        // What is told as free is not free for all, so near its end it is tried.
        let is_full = free < self.size && self.is_full();
        let was_full = self.was_full.swap(is_full, Ordering::Relaxed);
        if is_full && was_full {
            self.give_up();
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if !*held && free >= 3 * self.size {
            match allocate(&self.path, self.size) {
                Ok(()) => *held = true,
                Err(error) => tracing::debug!(%error, "no space is kept for removing files on a full disk"),
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
        Some(about.f_bavail.saturating_mul(about.f_frsize))
    }

    /// Whether not even a little can be written with the rights of root, which the overlay writes with.
    fn is_full(&self) -> bool {
        let path = self.path.with_extension("test");
        let written = allocate(&path, LOW);
        let _ = fs::remove_file(&path);
        written.is_err_and(|error| matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)))
    }
}

/// Makes a file of this size; removes it if there is no space.
fn allocate(path: &Path, size: u64) -> io::Result<()> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    fallocate(&file, FallocateFlags::empty(), 0, size).map_err(|errno| {
        let _ = fs::remove_file(path);
        errno.into()
    })
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
