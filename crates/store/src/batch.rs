//! Writing of objects: staged in scratch, synced together, then named.

use std::collections::{HashMap, hash_map};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use homeport_content::{Delta, DeltaId, Digest, FileContent, INLINE_LIMIT, SnapshotId, Tree};
use rustix::io::Errno;

use crate::error::io_error;
use crate::hold::Root;
use crate::names::Encoded;
use crate::outboard::{self, CopyError, Outboard};
use crate::{ScratchDir, Store, StoreError};

/// Objects that become visible together, at the price of one sync for all of them.
///
/// Until [`Batch::publish`] nothing of it is in the store; a batch that is dropped leaves no
/// trace. Threads may share a batch.
#[derive(Debug)]
pub struct Batch<'a> {
    store: &'a Store,
    /// With a hold that lives until all is published.
    scratch: ScratchDir,
    next: AtomicU64,
    staged: Mutex<HashMap<Digest, PathBuf>>,
}

impl Store {
    /// Starts a batch.
    pub fn batch(&self) -> Result<Batch<'_>, StoreError> {
        Ok(Batch {
            store: self,
            scratch: self.scratch_dir()?,
            next: AtomicU64::new(0),
            staged: Mutex::default(),
        })
    }
}

impl Batch<'_> {
    /// Stages an object with these bytes.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        if !self.contains(&digest)? {
            self.put_with_head(bytes, &mut io::empty())?;
        }
        Ok(digest)
    }

    /// Stages an object with all that `reader` gives; returns its digest and size.
    pub fn put_reader(&self, mut reader: impl Read) -> Result<(Digest, u64), StoreError> {
        self.put_with_head(&[], &mut reader)
    }

    /// Makes all that `reader` gives the content of a file: inline when it is at most
    /// [`INLINE_LIMIT`] bytes, else a staged object.
    pub fn file_content(&self, mut reader: impl Read) -> Result<FileContent, StoreError> {
        let mut head = Vec::with_capacity(INLINE_LIMIT + 1);
        (&mut reader).take(INLINE_LIMIT as u64 + 1).read_to_end(&mut head).map_err(StoreError::Source)?;
        if head.len() <= INLINE_LIMIT {
            return Ok(FileContent::Inline(head.into()));
        }
        let (digest, size) = self.put_with_head(&head, &mut reader)?;
        Ok(FileContent::Object { digest, size })
    }

    /// Takes the file at `path`, which nobody may be writing to any more, and stages it as an
    /// object, without copying if it is on the store's file system. It stays where it is until
    /// the batch is published, or goes at once if its content is known. Mode, owner, time and
    /// attributes are not part of an object and are lost then.
    pub fn adopt_file(&self, path: &Path) -> Result<(Digest, u64), StoreError> {
        let found = fs::symlink_metadata(path).map_err(io_error("look at", path))?;
        if !found.is_file() {
            return Err(StoreError::NotAFile(path.to_owned()));
        }
        let file = File::open(path).map_err(io_error("open", path))?;
        if found.dev() != self.device()? {
            let stored = self.put_reader(&file)?;
            fs::remove_file(path).map_err(io_error("remove", path))?;
            return Ok(stored);
        }
        let outboard = Outboard::of(&file, &|_| Ok(())).map_err(io_error("read", path))?;
        self.stage_hashed(&outboard, path.to_owned())
    }

    /// A path on the store's file system at which nothing is, for a file that is to be staged. What is there when
    /// the batch ends is removed.
    pub fn scratch_path(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.scratch.path().join(number.to_string())
    }

    /// Whether the object is staged or in the store. If it is, it stays for as long as the batch lives.
    pub fn contains(&self, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self.staged().contains_key(digest) || self.store.keep_object(digest)?)
    }

    /// Stages the file at `path`, on the store's file system, whose bytes have this digest, or removes it if there is
    /// such an object. It may have other names: with publishing, and not before, it loses mode, owner, time and
    /// attributes under all of them.
    pub fn stage_file(&self, digest: Digest, path: PathBuf) -> Result<(), StoreError> {
        if !self.contains(&digest)? {
            match self.staged().entry(digest) {
                hash_map::Entry::Vacant(entry) => {
                    entry.insert(path);
                    return Ok(());
                }
                // Another thread was quicker.
                hash_map::Entry::Occupied(_) => {}
            }
        }
        fs::remove_file(&path).map_err(io_error("remove", &path))
    }

    /// Where the object with this digest is staged; `None` if it is no part of the batch. It stays there until the batch
    /// is published.
    pub fn staged_path(&self, digest: &Digest) -> Option<PathBuf> {
        self.staged().get(digest).cloned()
    }

    /// Makes every staged object part of the store. All bytes are on disk before the first
    /// of them gets its name, and the names before this returns.
    pub fn publish(self) -> Result<(), StoreError> {
        self.publish_all(None)
    }

    /// Makes every staged object part of the store, then the tree, which may name them.
    pub fn publish_with_tree(self, tree: &Tree) -> Result<SnapshotId, StoreError> {
        tree.validate()?;
        let bytes = tree.encode();
        let id = Digest::of(&bytes);
        self.publish_all(Some(&Encoded { root: Root::Tree(id), bytes: &bytes, leaves: &tree.leaves }))?;
        Ok(id)
    }

    /// Makes every staged object part of the store, then the delta, which may name them.
    pub fn publish_with_delta(self, delta: &Delta) -> Result<DeltaId, StoreError> {
        delta.validate()?;
        let bytes = delta.encode();
        let id = Digest::of(&bytes);
        self.publish_all(Some(&Encoded { root: Root::Delta(id), bytes: &bytes, leaves: &delta.leaves }))?;
        Ok(id)
    }

    fn publish_all(&self, encoded: Option<&Encoded<'_>>) -> Result<(), StoreError> {
        let staged = std::mem::take(&mut *self.staged());
        for path in staged.values() {
            strip_metadata(&File::open(path).map_err(io_error("open", path))?, path)?;
        }
        self.store.publish_all(&staged, encoded, self.scratch.path())
    }

    fn staged(&self) -> MutexGuard<'_, HashMap<Digest, PathBuf>> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_with_head(&self, head: &[u8], reader: &mut impl Read) -> Result<(Digest, u64), StoreError> {
        let path = self.scratch_path();
        let mut file =
            File::options().write(true).create_new(true).open(&path).map_err(io_error("create", &path))?;
        let copied = outboard::copy(head, reader, &mut file).map_err(|error| match error {
            CopyError::Read(error) => StoreError::Source(error),
            CopyError::Write(error) => io_error("write", &path)(error),
        });
        match copied {
            Ok(outboard) => self.stage_hashed(&outboard, path),
            Err(error) => {
                // Space may be short: give it back at once, the batch can live on.
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    fn stage_hashed(&self, outboard: &Outboard, path: PathBuf) -> Result<(Digest, u64), StoreError> {
        let (digest, size) = (outboard.digest(), outboard.size());
        self.stage_file(digest, path)?;
        self.store.keep_outboard(outboard);
        Ok((digest, size))
    }

    fn device(&self) -> Result<u64, StoreError> {
        let found = self.store.root.metadata();
        Ok(found.map_err(io_error("look at", &self.store.dir))?.dev())
    }
}

/// Objects are plain read-only files of root, so that nothing of the first file with some
/// content shows in, or gives rights to, any other.
pub(crate) fn strip_metadata(file: &File, path: &Path) -> Result<(), StoreError> {
    let found = file.metadata().map_err(io_error("look at", path))?;
    if found.uid() != 0 || found.gid() != 0 {
        std::os::unix::fs::fchown(file, Some(0), Some(0)).map_err(io_error("chown", path))?;
    }
    if found.mode() & 0o7777 != 0o444 {
        file.set_permissions(fs::Permissions::from_mode(0o444)).map_err(io_error("chmod", path))?;
    }
    let failed = |errno: Errno| io_error("clear the attributes of", path)(errno.into());
    let mut names = vec![0; 1024];
    let length = loop {
        match rustix::fs::flistxattr(file, &mut names[..]) {
            Ok(length) => break length,
            Err(Errno::RANGE) if names.len() < 65_536 => names.resize(65_536, 0),
            Err(Errno::OPNOTSUPP) => break 0,
            Err(errno) => return Err(failed(errno)),
        }
    };
    for name in names[..length].split(|byte| *byte == 0) {
        // Labels of a security module belong to the place, and cannot be removed.
        if name.is_empty() || name == b"security.selinux" {
            continue;
        }
        match rustix::fs::fremovexattr(file, name) {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(())
}
