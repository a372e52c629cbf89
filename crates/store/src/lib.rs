//! Content on local disk: objects by digest, trees by id.
//!
//! ```text
//! objects/xx/rest   file contents, named by the BLAKE3 digest of their bytes
//! trees/xx/rest     encoded trees, named by the digest of the encoding
//! scratch/          what is being written; emptied when the store is opened
//! lock              held (shared) while the store is open
//! ```
//!
//! Invariants:
//! - What stands under a digest is complete and on disk: it is written to scratch, synced and
//!   then renamed. There is no time at which a half-written file has its final name.
//! - A tree is published only after every object renamed before it is durable. Names for trees
//!   are kept elsewhere, and must be written after [`Store::put_tree`] has returned.
//! - Objects never change. They are read-only files owned by root, without attributes.
//!
//! Writing many small files one by one costs a sync for each: use a [`Batch`].
//! Absent: garbage collection, remote storage, chunking.

mod batch;
mod error;
mod hashing;
mod objects;
mod trees;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

pub use batch::Batch;
pub use error::StoreError;
pub use hashing::digest_file;

use error::io_error;
use homeport_content::Digest;
use rustix::fs::FlockOperation;

/// A directory of objects and trees. Share it as `Arc<Store>`; every operation takes `&self`
/// and may run at the same time as any other, in this process and in others.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// Open on the directory, for syncing its file system.
    root: File,
    _lock: File,
    cache: Mutex<trees::TreeCache>,
}

impl Store {
    /// Opens the store in `dir`, which is made if it is missing. What an earlier process left
    /// in scratch is removed, unless another process has the store open now.
    pub fn open(dir: &Path) -> Result<Store, StoreError> {
        for part in ["objects", "trees", "scratch"] {
            let path = dir.join(part);
            fs::create_dir_all(&path).map_err(io_error("make the directory", &path))?;
        }
        let lock_path = dir.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(io_error("open", &lock_path))?;
        let alone = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        if alone {
            empty_directory(&dir.join("scratch"))?;
        }
        rustix::fs::flock(&lock, FlockOperation::LockShared)
            .map_err(|errno| io_error("lock", &lock_path)(errno.into()))?;
        let root = File::open(dir).map_err(io_error("open", dir))?;
        Ok(Store { dir: dir.to_owned(), root, _lock: lock, cache: Mutex::default() })
    }

    /// The directory of the store.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory that holds the objects, laid out as `xx/rest`.
    pub fn objects_dir(&self) -> PathBuf {
        self.dir.join("objects")
    }

    /// A new directory on the file system of the store, removed with all its content when the
    /// guard is dropped, or at the next start.
    pub fn scratch_dir(&self) -> Result<tempfile::TempDir, StoreError> {
        let scratch = self.dir.join("scratch");
        tempfile::Builder::new()
            .prefix("work-")
            .tempdir_in(&scratch)
            .map_err(io_error("make a directory in", &scratch))
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

    /// Renames a finished file to its place. Who comes second replaces equal bytes by equal bytes.
    fn publish(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        match fs::rename(from, to) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let shard = to.parent().unwrap_or(&self.dir);
                fs::create_dir_all(shard).map_err(io_error("make the directory", shard))?;
                fs::rename(from, to).map_err(io_error("rename a new file to", to))
            }
            result => result.map_err(io_error("rename a new file to", to)),
        }
    }

    /// Makes the name of a published file durable: its shard, and the shard's own name.
    fn sync_name(&self, published: &Path) -> Result<(), StoreError> {
        for directory in published.ancestors().skip(1).take(2) {
            File::open(directory)
                .and_then(|handle| handle.sync_all())
                .map_err(io_error("sync", directory))?;
        }
        Ok(())
    }
}

fn empty_directory(dir: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let entry = entry.map_err(io_error("list", dir))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(io_error("look at", &path))?;
        let removed = if kind.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(io_error("remove what was left of", &path))?;
    }
    Ok(())
}
