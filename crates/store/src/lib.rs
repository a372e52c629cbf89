//! Content on local disk: objects by digest, trees by id.
//!
//! ```text
//! objects/xx/rest   file contents, named by the BLAKE3 digest of their bytes
//! trees/xx/rest     encoded trees, named by the digest of the encoding
//! deltas/xx/rest    encoded deltas, likewise
//! outboards/xx/rest inner hashes of large objects, see [`outboard`]
//! scratch/          what is being written; emptied when the store is opened
//! lock              held (shared) while the store is open; holds are announced on it
//! clock             what this boot's times are counted from
//! quarantine/       damaged files, put aside
//! scrub             how far the scrubber is
//! ```
//!
//! Invariants:
//! - What stands under a digest is complete and on disk: it is written to scratch, synced and
//!   then renamed. There is no time at which a half-written file has its final name.
//! - A tree or delta is published only after every object renamed before it is durable. Names for
//!   them are kept elsewhere, and must be written after [`Store::put_tree`] has returned.
//! - Objects never change. They are read-only files owned by root, without attributes.
//!
//! Writing many small files one by one costs a sync for each: use a [`Batch`].
//! What is stored or found during a [`Hold`] is safe from garbage collection, see [`Store::hold`].
//! Absent: remote storage, chunking.

mod batch;
mod cache;
mod check;
mod clock;
mod deltas;
mod disk;
mod error;
mod examine;
mod fault;
mod gc;
mod hashing;
mod hold;
mod marks;
mod names;
mod objects;
pub mod outboard;
mod protocol;
mod quarantine;
mod reach;
mod scratch;
mod scrub;
mod sources;
mod trees;
mod usage;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use batch::Batch;
pub use check::{CheckNews, CheckRequest, CheckSummary};
pub use error::StoreError;
pub use fault::{Fault, Finding, Mended};
pub use gc::{BrokenRoot, Collection, SweepError, Swept};
pub use hashing::digest_file;
pub use hold::{Hold, Pin, Root};
pub use scratch::ScratchDir;
pub use scrub::{ScrubPolicy, ScrubState};
pub use usage::{OwnerUsage, Usage};

use cache::Cache;
use clock::StoreClock;
use disk::Disk;
use error::io_error;
use homeport_content::{Delta, Digest, Tree};
use names::Names;
use protocol::Protocol;
use rustix::fs::FlockOperation;

/// A directory of objects and trees. Share it as `Arc<Store>`; every operation takes `&self`
/// and may run at the same time as any other, in this process and in others.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// Open on the directory, for syncing its file system.
    root: File,
    _lock: File,
    trees: Cache<Tree>,
    deltas: Cache<Delta>,
    names: Names,
    protocol: Arc<Protocol<Disk>>,
}

impl Store {
    /// Opens the store in `dir`, which is made if it is missing. What an earlier process left
    /// in scratch is removed, unless another process has the store open now.
    pub fn open(dir: &Path) -> Result<Store, StoreError> {
        for part in ["objects", "trees", "deltas", "scratch"] {
            let path = dir.join(part);
            fs::create_dir_all(&path).map_err(io_error("make the directory", &path))?;
        }
        let lock_path = dir.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&lock_path)
            .map_err(io_error("open", &lock_path))?;
        let alone = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        let root = File::open(dir).map_err(io_error("open", dir))?;
        if alone {
            empty_scratch(&dir.join("scratch"), &root)?;
        }
        rustix::fs::flock(&lock, FlockOperation::LockShared)
            .map_err(|errno| io_error("lock", &lock_path)(errno.into()))?;
        let clock = StoreClock::open(&dir.join("clock"))?;
        let disk = lock.try_clone().and_then(|lock| Disk::new(clock, lock));
        let protocol = Arc::new(Protocol::new(disk.map_err(io_error("use", &lock_path))?));
        Ok(Store {
            dir: dir.to_owned(),
            root,
            _lock: lock,
            trees: Cache::new(trees::CACHE_BYTES),
            deltas: Cache::new(deltas::CACHE_BYTES),
            names: Names::default(),
            protocol,
        })
    }

    /// The directory of the store.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory that holds the objects, laid out as `xx/rest`.
    pub fn objects_dir(&self) -> PathBuf {
        self.dir.join("objects")
    }

    /// Waits until everything written to the file system of the store is on disk.
    pub fn sync(&self) -> Result<(), StoreError> {
        rustix::fs::syncfs(&self.root)
            .map_err(|errno| io_error("sync the file system of", &self.dir)(errno.into()))
    }

    fn place(&self, kind: &str, digest: &Digest) -> PathBuf {
        let hex = digest.to_hex();
        let (shard, rest) = hex.split_at(2);
        let mut path = self.dir.join(kind);
        path.push(shard);
        path.push(rest);
        path
    }

    /// Whether the file is here; if it is, no collection takes it before the holds of now end.
    fn keep(&self, place: &PathBuf) -> Result<bool, StoreError> {
        // Most of what is looked for is not there.
        if place.symlink_metadata().is_err() {
            return Ok(false);
        }
        self.protocol.keep(place)
    }

    /// Renames a finished file to its place. Who comes second replaces equal bytes by equal bytes.
    fn publish(&self, from: &Path, to: &PathBuf) -> Result<(), StoreError> {
        self.protocol.publish(from, to)
    }
}

/// Removes what a process left that was stopped at work.
fn empty_scratch(dir: &Path, root: &File) -> Result<(), StoreError> {
    let entries = fs::read_dir(dir).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let entries = entries.map_err(io_error("list", dir))?;
    if !entries.is_empty() {
        // It may also have left names that are not on disk yet, on which others would build.
        rustix::fs::syncfs(root).map_err(|errno| io_error("sync the file system of", dir)(errno.into()))?;
    }
    for entry in entries {
        let path = entry.path();
        let kind = entry.file_type().map_err(io_error("look at", &path))?;
        let removed = if kind.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(io_error("remove what was left of", &path))?;
    }
    Ok(())
}
