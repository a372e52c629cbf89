//! What is remembered of the files of one upper directory from one take to the next.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use homeport_content::Digest;
use rustix::fs::Stat;

use super::links::Origin;

/// The kernel's clock for times of files goes in steps. What was changed longer ago than this gets another time when it
/// is changed again.
const STEP: i128 = 20_000_000;

/// Device and inode number.
pub(super) type Inode = (u64, u64);

/// What tells a changed file from the same as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) size: u64,
    modified: i128,
    changed: i128,
}

impl Stamp {
    pub(super) fn of(stat: &Stat) -> (Inode, Stamp) {
        let nanos = |seconds: i64, nanos: u64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        let stamp = Stamp {
            size: stat.st_size as u64,
            modified: nanos(stat.st_mtime, stat.st_mtime_nsec as u64),
            changed: nanos(stat.st_ctime, stat.st_ctime_nsec as u64),
        };
        ((stat.st_dev, stat.st_ino), stamp)
    }

    /// How long to wait until a change gives another stamp, in nanoseconds. A time in the future is not trusted for
    /// long: somebody set the clock.
    pub(super) fn until_settled(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as i128);
        (self.changed + STEP - now).clamp(0, STEP) as u64
    }

    /// Whether a change that comes from now on gives another stamp.
    pub(super) fn is_settled(&self) -> bool {
        self.until_settled() == 0
    }
}

/// Digests of files that were taken, and where hard links come from. Belongs to one upper directory over one stack.
#[derive(Debug, Default)]
pub(crate) struct Known {
    files: Mutex<HashMap<Inode, Remembered>>,
    origins: Mutex<HashMap<Box<[u8]>, Origin>>,
}

#[derive(Debug, Clone, Copy)]
struct Remembered {
    stamp: Stamp,
    digest: Digest,
    /// Whether the stamp alone says that the content is the same: nobody could write to the file, and the stamp was
    /// settled, when it was read.
    certain: bool,
}

impl Known {
    fn files(&self) -> MutexGuard<'_, HashMap<Inode, Remembered>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The digest of a file that is as it was when it was taken.
    pub(super) fn unchanged(&self, inode: Inode, stamp: Stamp) -> Option<Digest> {
        let remembered = *self.files().get(&inode)?;
        (remembered.certain && remembered.stamp == stamp).then_some(remembered.digest)
    }

    /// The digest that a file had when it was taken last, whatever became of it.
    pub(super) fn last(&self, inode: Inode) -> Option<Digest> {
        self.files().get(&inode).map(|remembered| remembered.digest)
    }

    pub(super) fn remember(&self, inode: Inode, stamp: Stamp, digest: Digest, certain: bool) {
        self.files().insert(inode, Remembered { stamp, digest, certain });
    }

    /// Where the file with this name in the index was copied up from.
    pub(super) fn origin(&self, name: &[u8]) -> Option<Origin> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    pub(super) fn remember_origin(&self, name: &[u8], origin: Origin) {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into(), origin);
    }
}
