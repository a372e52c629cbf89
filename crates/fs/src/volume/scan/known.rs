//! What is remembered of the files of one upper directory from one take to the next.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use homeport_content::{Digest, Leaf};
use rustix::fs::Stat;

use super::links::Origin;

const SECOND: i128 = 1_000_000_000;

/// The kernel's clock for times of files goes in steps. What was changed longer ago than this gets another time when it
/// is changed again.
const STEP: i128 = 20_000_000;

/// The same where whole seconds are kept, as on an ext4 file system with small inodes.
const COARSE_STEP: i128 = 2 * SECOND;

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
        let nanos = |seconds: i64, nanos: u64| i128::from(seconds) * SECOND + i128::from(nanos);
        let stamp = Stamp {
            size: stat.st_size as u64,
            modified: nanos(stat.st_mtime, stat.st_mtime_nsec),
            changed: nanos(stat.st_ctime, stat.st_ctime_nsec),
        };
        ((stat.st_dev, stat.st_ino), stamp)
    }

    /// How long to wait until every change gives another stamp, in nanoseconds.
    pub(super) fn until_settled(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as i128);
        let step = if self.changed % SECOND == 0 { COARSE_STEP } else { STEP };
        (self.changed + step - now).clamp(0, step) as u64
    }

    /// Whether a change that comes from now on gives another stamp.
    pub(super) fn is_settled(&self) -> bool {
        self.until_settled() == 0
    }
}

/// What was found out about the files of one upper directory over one stack.
///
/// What is remembered as certain is taken from the stamp alone. That is right when nobody could write to the file and the
/// stamp was settled when the file was read: who writes later opens it later, and the first write, also one through a
/// mapping, changes the stamp.
#[derive(Debug, Default)]
pub(crate) struct Known {
    files: Mutex<HashMap<Inode, Remembered>>,
    origins: Mutex<HashMap<Box<[u8]>, Origin>>,
    /// Number of confirmations.
    confirmed: AtomicU64,
}

#[derive(Debug)]
struct Remembered {
    stamp: Stamp,
    certain: bool,
    digest: Option<Digest>,
    /// All of it, if it has to be read no more; and the number of confirmations before that.
    leaf: Option<(Box<Leaf>, u64)>,
}

impl Known {
    /// Says that what scans found so far is in the store, and kept there for as long as this is used. Until then it is
    /// staged again by each scan.
    pub(crate) fn confirm(&self) {
        self.confirmed.fetch_add(1, Ordering::Relaxed);
    }

    fn files(&self) -> MutexGuard<'_, HashMap<Inode, Remembered>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The digest of a file that is as it was when it was read.
    pub(super) fn unchanged(&self, inode: Inode, stamp: Stamp) -> Option<Digest> {
        self.files().get(&inode).filter(|known| known.certain && known.stamp == stamp)?.digest
    }

    /// The digest that a file had when it was read last, whatever became of it.
    pub(super) fn last(&self, inode: Inode) -> Option<Digest> {
        self.files().get(&inode)?.digest
    }

    pub(super) fn remember(&self, inode: Inode, stamp: Stamp, digest: Digest, certain: bool) {
        self.files().insert(inode, Remembered { stamp, certain, digest: Some(digest), leaf: None });
    }

    /// All of a file that is as it was, if its content need not be staged.
    pub(super) fn leaf(&self, inode: Inode, stamp: Stamp) -> Option<Leaf> {
        let files = self.files();
        let known = files.get(&inode).filter(|known| known.certain && known.stamp == stamp)?;
        let (leaf, confirmed) = known.leaf.as_ref()?;
        (*confirmed < self.confirmed.load(Ordering::Relaxed)).then(|| Leaf::clone(leaf))
    }

    /// Remembers all of a file whose content was remembered with this stamp.
    pub(super) fn complete(&self, inode: Inode, stamp: Stamp, leaf: &Leaf) {
        let confirmed = self.confirmed.load(Ordering::Relaxed);
        if let Some(known) = self.files().get_mut(&inode).filter(|known| known.stamp == stamp) {
            known.leaf.get_or_insert_with(|| (Box::new(leaf.clone()), confirmed));
        }
    }

    /// Remembers all of what has no content of its own in the store.
    pub(super) fn remember_whole(&self, inode: Inode, stamp: Stamp, leaf: &Leaf, certain: bool) {
        let leaf = Some((Box::new(leaf.clone()), self.confirmed.load(Ordering::Relaxed)));
        let mut files = self.files();
        match files.get_mut(&inode) {
            Some(known) if known.stamp == stamp && known.leaf.is_some() => {}
            _ => drop(files.insert(inode, Remembered { stamp, certain, digest: None, leaf })),
        }
    }

    /// Where the file with this name in the index was copied up from.
    pub(super) fn origin(&self, name: &[u8]) -> Option<Origin> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    pub(super) fn remember_origin(&self, name: &[u8], origin: Origin) {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into(), origin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(changed: i128) -> Stamp {
        Stamp { size: 1, modified: 0, changed }
    }

    #[test]
    fn a_stamp_settles_when_the_clock_has_gone_on() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i128;
        let odd = now - now % SECOND + 1;
        assert!(stamp(odd - SECOND).is_settled());
        assert!(!stamp(odd + SECOND).is_settled());
        assert!(!stamp(now - now % SECOND).is_settled());
        assert!(stamp(now - now % SECOND - 3 * SECOND).is_settled());
        // A clock that was set back gives no long waits.
        assert!(i128::from(stamp(odd + 3600 * SECOND).until_settled()) <= STEP);
    }

    #[test]
    fn only_what_is_certain_and_in_the_store_is_taken_from_the_stamp() {
        let known = Known::default();
        let (inode, old, new) = ((1, 2), stamp(1), stamp(2));
        let leaf = Leaf {
            metadata: homeport_content::Metadata::with_mode(0),
            kind: homeport_content::LeafKind::Fifo,
        };
        let digest = Digest::of(b"content");
        known.remember(inode, old, digest, false);
        known.complete(inode, old, &leaf);
        known.confirm();
        assert_eq!((known.unchanged(inode, old), known.last(inode)), (None, Some(digest)));
        assert_eq!(known.leaf(inode, old), None);

        known.remember(inode, old, digest, true);
        known.complete(inode, new, &leaf);
        known.confirm();
        assert_eq!((known.unchanged(inode, old), known.unchanged(inode, new)), (Some(digest), None));
        assert_eq!(known.leaf(inode, old), None);
        known.complete(inode, old, &leaf);
        assert_eq!(known.leaf(inode, old), None);
        known.confirm();
        assert_eq!(known.leaf(inode, old), Some(leaf.clone()));
        assert_eq!(known.leaf(inode, new), None);

        known.remember_whole(inode, new, &leaf, true);
        known.confirm();
        assert_eq!((known.leaf(inode, old), known.leaf(inode, new)), (None, Some(leaf)));
    }
}
