//! Objects: single writes, reading and checking.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use homeport_content::{Digest, FileContent};

use crate::error::io_error;
use crate::hashing::digest_file;
use crate::{Store, StoreError};

impl Store {
    /// Stores these bytes; they are durable on return.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        if !self.keep_object(&digest)? {
            let batch = self.batch()?;
            batch.put_bytes(bytes)?;
            batch.publish()?;
        }
        Ok(digest)
    }

    /// Stores all that `reader` gives; returns its digest and size. Durable on return.
    pub fn put_reader(&self, reader: impl Read) -> Result<(Digest, u64), StoreError> {
        let batch = self.batch()?;
        let stored = batch.put_reader(reader)?;
        batch.publish()?;
        Ok(stored)
    }

    /// Takes one file into the store, see [`Batch::adopt_file`](crate::Batch::adopt_file).
    /// Durable on return.
    pub fn adopt_file(&self, path: &Path) -> Result<(Digest, u64), StoreError> {
        let batch = self.batch()?;
        let stored = batch.adopt_file(path)?;
        batch.publish()?;
        Ok(stored)
    }

    /// Makes all that `reader` gives the content of a file, inline when it is small.
    /// Durable on return.
    pub fn file_content(&self, reader: impl Read) -> Result<FileContent, StoreError> {
        let batch = self.batch()?;
        let content = batch.file_content(reader)?;
        batch.publish()?;
        Ok(content)
    }

    /// Where the object is, or would be.
    pub fn object_path(&self, digest: &Digest) -> PathBuf {
        self.place("objects", digest)
    }

    /// Whether the object is here.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.object_path(digest).symlink_metadata().is_ok()
    }

    /// Whether the object is here, for who needs it to stay: during a [`Hold`](crate::Hold) that
    /// began before, no collection takes it.
    pub fn keep_object(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.keep(&self.object_path(digest))
    }

    /// Opens an object for reading. Its bytes are not checked, see [`Store::verify_object`].
    pub fn open_object(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.object_path(digest);
        File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::MissingObject(*digest),
            _ => io_error("open", &path)(error),
        })
    }

    /// All bytes of a file's content.
    pub fn read_content(&self, content: &FileContent) -> Result<Vec<u8>, StoreError> {
        let (digest, size) = match content {
            FileContent::Inline(bytes) => return Ok(bytes.to_vec()),
            FileContent::Object { digest, size } => (digest, *size),
        };
        let mut bytes = Vec::new();
        self.open_object(digest)?
            .read_to_end(&mut bytes)
            .map_err(io_error("read", &self.object_path(digest)))?;
        check_size(digest, size, bytes.len() as u64)?;
        Ok(bytes)
    }

    /// Reads the whole object and compares its digest; returns its size.
    pub fn verify_object(&self, digest: &Digest) -> Result<u64, StoreError> {
        let file = self.open_object(digest)?;
        let path = self.object_path(digest);
        let (found, size) = digest_file(&file).map_err(io_error("read", &path))?;
        if found == *digest { Ok(size) } else { Err(StoreError::Damaged { path, found }) }
    }
}

pub(crate) fn check_size(digest: &Digest, expected: u64, found: u64) -> Result<(), StoreError> {
    if expected == found {
        return Ok(());
    }
    Err(StoreError::WrongSize { digest: *digest, expected, found })
}
