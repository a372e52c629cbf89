//! Outboards: the inner hashes of large contents, so that a change is hashed and not the whole file.
//!
//! BLAKE3 is a tree. An outboard holds the chaining values of the subtrees over each [`GROUP`] bytes; the digest follows
//! from them, and those of a changed file differ only where its bytes do. One is kept beside every large object that was
//! hashed here (`outboards/xx/rest`). It is a cache: what is read back counts only if it leads to the digest it is for.

mod stream;
mod work;

use std::fs::{self, File};
use std::io;
use std::ops::Range;

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};
use homeport_content::Digest;

use crate::error::io_error;
use crate::{Store, StoreError};
pub(crate) use stream::{CopyError, copy};
use work::Work;

/// Bytes under one chaining value.
pub const GROUP: u64 = 64 * 1024;

/// Contents of at least this size are worth an outboard on disk.
pub const MIN_SIZE: u64 = 16 << 20;

/// Name, version, and the logarithm of [`GROUP`].
const MAGIC: [u8; 8] = *b"HPOUTB\x01\x10";

/// The inner hashes of one content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outboard {
    size: u64,
    /// One for each group. Content of at most one group has no inner hash: then it is the digest itself.
    groups: Vec<ChainingValue>,
}

/// Called after each part that was hashed, with its place in the file, by several threads; an error of it ends the
/// hashing and is what comes of it.
pub type Between<'a> = &'a (dyn Fn(Range<u64>) -> io::Result<()> + Sync);

impl Outboard {
    /// Hashes a file, with all cores if it is large. Holes are hashed as zeros without being read.
    pub fn of(file: &File, between: Between<'_>) -> io::Result<Outboard> {
        let size = file.metadata()?.len();
        let blank = Outboard { size: 0, groups: Vec::new() };
        blank.with_changes(file, size, &[], between)
    }

    /// Hashes a file of `size` bytes of which the `equal` ranges (ascending) have the bytes that this outboard is of,
    /// at the same places. Reads the groups that are not wholly equal.
    pub fn with_changes(
        &self,
        file: &File,
        size: u64,
        equal: &[Range<u64>],
        between: Between<'_>,
    ) -> io::Result<Outboard> {
        let count = size.div_ceil(GROUP).max(1);
        let mut groups = vec![[0; 32]; count as usize];
        let mut wanted = Vec::new();
        for (number, group) in groups.iter_mut().enumerate() {
            match self.unchanged(number, size, equal) {
                Some(value) => *group = value,
                None => wanted.push(number as u64),
            }
        }
        Work::new(file, size, between)?.hash(&wanted, &mut groups)?;
        Ok(Outboard { size, groups })
    }

    /// The value of a group, if it has the same bytes and the same part in a tree over `size` bytes.
    fn unchanged(&self, number: usize, size: u64, equal: &[Range<u64>]) -> Option<ChainingValue> {
        if self.size <= GROUP || size <= GROUP {
            return None;
        }
        let range = group_range(number as u64, size);
        let before = equal.partition_point(|equal| equal.start <= range.start);
        let covered = before > 0 && equal[before - 1].end >= range.end;
        let same_part = (number as u64 * GROUP) < self.size && group_range(number as u64, self.size) == range;
        (covered && same_part).then(|| self.groups[number])
    }

    /// The digest of the content.
    pub fn digest(&self) -> Digest {
        match self.groups.as_slice() {
            [only] => Digest::from_bytes(*only),
            groups => {
                let left = left_subtree_len(self.size);
                let (first, second) = groups.split_at((left / GROUP) as usize);
                let second = subtree(second, self.size - left);
                merge_subtrees_root(&subtree(first, left), &second, Mode::Hash).into()
            }
        }
    }

    /// Number of bytes of the content.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The bytes to be written to disk.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + self.groups.len() * 32);
        bytes.extend(MAGIC);
        bytes.extend(self.size.to_le_bytes());
        bytes.extend(self.groups.iter().flatten());
        bytes
    }

    /// Reads bytes that [`Outboard::encode`] wrote; the digest is not looked at.
    fn decode(bytes: &[u8]) -> Option<Outboard> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (size, rest) = rest.split_first_chunk::<8>()?;
        let size = u64::from_le_bytes(*size);
        let (groups, rest) = rest.as_chunks::<32>();
        let whole = *magic == MAGIC && rest.is_empty() && groups.len() as u64 == size.div_ceil(GROUP).max(1);
        whole.then(|| Outboard { size, groups: groups.to_vec() })
    }
}

impl Store {
    /// The outboard of an object; `None` if none is kept, or what is kept is damaged.
    pub fn outboard(&self, digest: &Digest) -> Option<Outboard> {
        let place = self.place("outboards", digest);
        let bytes = fs::read(&place).ok()?;
        let outboard = Outboard::decode(&bytes).filter(|outboard| outboard.digest() == *digest);
        if outboard.is_none() {
            // It makes room for one that is right.
            let _ = fs::remove_file(&place);
        }
        outboard
    }

    /// Keeps an outboard if its content is large. Without it the next change costs more, so nothing fails when it cannot
    /// be kept, and it is not synced: one that a crash damaged is seen to be.
    pub fn keep_outboard(&self, outboard: &Outboard) {
        if outboard.size < MIN_SIZE {
            return;
        }
        if let Err(error) = self.write_outboard(outboard) {
            tracing::warn!(%error, "the inner hashes of a large content are not kept");
        }
    }

    fn write_outboard(&self, outboard: &Outboard) -> Result<(), StoreError> {
        let place = self.place("outboards", &outboard.digest());
        if place.symlink_metadata().is_ok() {
            return Ok(());
        }
        let scratch = self.scratch_dir()?;
        let written = scratch.path().join("outboard");
        fs::write(&written, outboard.encode()).map_err(io_error("write", &written))?;
        self.publish(&written, &place)
    }
}

fn last_value(hasher: &blake3::Hasher, size: u64) -> ChainingValue {
    if size <= GROUP { *hasher.finalize().as_bytes() } else { hasher.finalize_non_root() }
}

/// The value of the group with this number, of a content of which the size is known.
fn value_of(number: u64, bytes: &[u8], size: u64) -> ChainingValue {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(number * GROUP);
    last_value(hasher.update(bytes), size)
}

fn group_range(number: u64, size: u64) -> Range<u64> {
    number * GROUP..size.min((number + 1) * GROUP)
}

/// The value of the subtree over `size` bytes that these groups make up.
fn subtree(groups: &[ChainingValue], size: u64) -> ChainingValue {
    match groups {
        [only] => *only,
        _ => {
            let left = left_subtree_len(size);
            let (first, second) = groups.split_at((left / GROUP) as usize);
            merge_subtrees_non_root(&subtree(first, left), &subtree(second, size - left), Mode::Hash)
        }
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
