//! Multipart uploads: parts arrive in any order and in parallel, straight into their place in one file.
//!
//! ```text
//! bl-….parts/data     the future blob, sparse until all parts are there
//! bl-….parts/3        MD5 of part 3 in hex, written once the part is on disk as a whole
//! ```
//! A client repeats a part whose connection broke. While the old upload of it may still be writing, the
//! newest one owns the part's bytes, and a completed blob belongs to nobody: see [`PartClaim`].

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use md5::{Digest, Md5};

use super::{BlobId, BlobStore, sync_directory};
use crate::claim::{Owners, PartClaim};
use crate::receive::ReceiveError;

/// Why an upload was not completed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompleteError {
    #[error("part {0} was not uploaded")]
    MissingPart(u64),
    #[error("part {number} has the ETag {stored}, not {claimed}")]
    WrongPart { number: u64, stored: String, claimed: String },
    #[error("{claimed} parts are named, but the blob has {expected}")]
    WrongCount { claimed: u64, expected: u64 },
    #[error("cannot complete the upload")]
    Io(#[from] std::io::Error),
}

/// Number of parts of a blob; an empty one has a single empty part.
pub(crate) fn part_count(length: u64, part_length: u64) -> u64 {
    length.div_ceil(part_length.max(1)).max(1)
}

/// Place and length of part `number` (from 1) of a blob, in bytes. None if it has no such part.
pub(crate) fn part_range(length: u64, part_length: u64, number: u64) -> Option<(u64, u64)> {
    if number == 0 || number > part_count(length, part_length) {
        return None;
    }
    let offset = (number - 1) * part_length;
    Some((offset, part_length.min(length - offset)))
}

/// Uploads of this process that have parts on their way.
#[derive(Default)]
pub(crate) struct Uploads {
    by_blob: Mutex<HashMap<BlobId, Arc<RwLock<Owners>>>>,
}

impl Uploads {
    fn owners(&self, id: &BlobId) -> Arc<RwLock<Owners>> {
        let mut by_blob = self.by_blob.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(by_blob.entry(id.clone()).or_default())
    }

    pub(super) fn forget(&self, id: &BlobId) {
        self.by_blob.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

impl BlobStore {
    /// Begins an upload of a part: the file to write to, and the claim on the part's bytes. None if the
    /// blob is complete already. Blocks on the disk.
    pub(crate) fn begin_part(&self, id: &BlobId, number: u64) -> std::io::Result<Option<(File, PartClaim)>> {
        let owners = self.uploads.owners(id);
        let mut guard = owners.write().unwrap_or_else(PoisonError::into_inner);
        if guard.complete || self.path(id).exists() {
            return Ok(None);
        }
        let directory = self.parts_directory(id);
        std::fs::create_dir_all(&directory)?;
        ignore_missing(std::fs::remove_file(directory.join(number.to_string())))?;
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).open(directory.join("data"))?;
        let claim = guard.claim(&owners, number);
        drop(guard);
        Ok(Some((file, claim)))
    }

    /// Notes that a part is on disk as a whole. Blocks on the disk.
    pub(crate) fn end_part(
        &self,
        id: &BlobId,
        file: &File,
        claim: &PartClaim,
        md5: &[u8; 16],
    ) -> Result<(), ReceiveError> {
        file.sync_data()?;
        let held = claim.hold()?;
        let note = self.parts_directory(id).join(claim.number().to_string());
        std::fs::write(note, hex::encode(md5))?;
        drop(held);
        Ok(())
    }

    /// Makes the parts the blob; returns its ETag. Doing it again gives the same answer. Blocks on the disk.
    ///
    /// `claimed` are the parts' ETags by part number as the client repeats them.
    pub(crate) fn complete(
        &self,
        id: &BlobId,
        length: u64,
        part_length: u64,
        claimed: &[(u64, String)],
    ) -> Result<String, CompleteError> {
        let expected = part_count(length, part_length);
        if claimed.len() as u64 != expected {
            return Err(CompleteError::WrongCount { claimed: claimed.len() as u64, expected });
        }
        let owners = self.uploads.owners(id);
        let mut guard = owners.write().unwrap_or_else(PoisonError::into_inner);
        let directory = self.parts_directory(id);
        let done = self.path(id).exists();
        let mut of_parts = Md5::new();
        for (number, (position, etag)) in (1..).zip(claimed) {
            if *position != number {
                return Err(CompleteError::MissingPart(number));
            }
            if !done {
                check_part(&directory, number, etag)?;
            }
            of_parts.update(hex::decode(etag).unwrap_or_default());
        }
        let etag = format!("{}-{expected}", hex::encode(of_parts.finalize()));
        if done {
            return Ok(etag);
        }
        let data = OpenOptions::new().write(true).open(directory.join("data"))?;
        data.sync_all()?;
        std::fs::rename(directory.join("data"), self.path(id))?;
        guard.complete = true;
        drop(guard);
        sync_directory(&self.options.directory)?;
        ignore_missing(std::fs::remove_dir_all(&directory))?;
        self.uploads.forget(id);
        Ok(etag)
    }

    fn parts_directory(&self, id: &BlobId) -> PathBuf {
        self.options.directory.join(format!("{id}.parts"))
    }
}

fn check_part(directory: &std::path::Path, number: u64, claimed: &str) -> Result<(), CompleteError> {
    match std::fs::read_to_string(directory.join(number.to_string())) {
        Ok(stored) if stored == claimed => Ok(()),
        Ok(stored) => Err(CompleteError::WrongPart { number, stored, claimed: claimed.to_owned() }),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(CompleteError::MissingPart(number)),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn ignore_missing(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::time::SystemTime;

    use super::*;
    use crate::blobs::BlobOptions;

    #[test]
    fn parts_cover_the_blob_without_gap_or_overlap() {
        assert_eq!(part_range(10, 4, 1), Some((0, 4)));
        assert_eq!(part_range(10, 4, 3), Some((8, 2)));
        assert_eq!(part_range(10, 4, 4), None);
        assert_eq!(part_range(10, 4, 0), None);
        assert_eq!(part_range(8, 4, 2), Some((4, 4)));
        assert_eq!(part_range(0, 4, 1), Some((0, 0)));
    }

    #[test]
    fn an_older_upload_of_a_part_cannot_write_once_a_newer_began_or_the_blob_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(BlobOptions::new(dir.path()), Arc::new(SystemTime::now)).unwrap();
        let id = BlobId::random();
        let (_, old) = store.begin_part(&id, 1).unwrap().unwrap();
        assert!(old.hold().is_ok());
        let (file, new) = store.begin_part(&id, 1).unwrap().unwrap();
        assert!(matches!(old.hold(), Err(ReceiveError::Superseded)));

        let md5: [u8; 16] = Md5::digest(b"data").into();
        file.write_all_at(b"data", 0).unwrap();
        store.end_part(&id, &file, &new, &md5).unwrap();
        let etags = [(1, hex::encode(md5))];
        let etag = store.complete(&id, 4, 4, &etags).unwrap();
        assert!(matches!(new.hold(), Err(ReceiveError::Superseded)));
        assert!(store.begin_part(&id, 1).unwrap().is_none());

        assert_eq!(store.complete(&id, 4, 4, &etags).unwrap(), etag, "a repeated completion");
        assert_eq!(std::fs::read(store.path(&id)).unwrap(), b"data");
    }
}
