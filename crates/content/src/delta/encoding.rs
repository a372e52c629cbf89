//! The canonical encoding of a [`Delta`], version 1.
//!
//! ```text
//! delta     = magic "HPDELT" · version 0x01 · directory
//! directory, metadata, bytes, varint: as in the encoding of a tree
//! entry     = 0x00 … 0x07: as in the encoding of a tree
//!           | 0x08                                                        removed
//! ```
//!
//! Leaves are numbered as there, and the same limits hold.

use std::collections::{BTreeMap, HashMap};

use super::{Change, ChangedDirectory, Delta};
use crate::encoding::{
    DIRECTORY, LINK, Reader, VERSION, put_bytes, put_leaf, put_metadata, put_varint, take_leaf, take_metadata,
};
use crate::tree::name_fault;
use crate::{DecodeError, DecodeErrorKind, Leaf, LeafId, MAX_DEPTH};

const MAGIC: &[u8] = b"HPDELT";
const REMOVED: u8 = 8;

pub(super) fn encode(delta: &Delta) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + delta.leaves.len() * 64);
    out.extend_from_slice(MAGIC);
    out.push(VERSION);
    put_directory(&mut out, &delta.root, delta, &mut HashMap::new());
    out
}

fn put_directory(
    out: &mut Vec<u8>,
    directory: &ChangedDirectory,
    delta: &Delta,
    numbers: &mut HashMap<LeafId, u64>,
) {
    put_metadata(out, &directory.metadata);
    put_varint(out, directory.entries.len() as u64);
    for (name, change) in &directory.entries {
        put_bytes(out, name);
        match change {
            Change::Removed => out.push(REMOVED),
            Change::Directory(directory) => {
                out.push(DIRECTORY);
                put_directory(out, directory, delta, numbers);
            }
            Change::Leaf(id) => {
                let next = numbers.len() as u64;
                match (numbers.get(id), delta.leaf(*id)) {
                    (None, Some(leaf)) => {
                        numbers.insert(*id, next);
                        put_leaf(out, leaf);
                    }
                    (number, _) => {
                        out.push(LINK);
                        put_varint(out, number.copied().unwrap_or(u64::MAX));
                    }
                }
            }
        }
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Delta, DecodeError> {
    let mut reader = Reader::new(bytes);
    if reader.take(MAGIC.len())? != MAGIC {
        return Err(reader.refuse(DecodeErrorKind::NotADelta));
    }
    let version = reader.byte()?;
    if version != VERSION {
        return Err(reader.refuse(DecodeErrorKind::UnknownVersion(version)));
    }
    let mut leaves = Vec::new();
    let root = take_directory(&mut reader, &mut leaves, 0)?;
    if !reader.is_empty() {
        return Err(reader.refuse(DecodeErrorKind::TrailingBytes));
    }
    Ok(Delta { root, leaves })
}

fn take_directory(
    reader: &mut Reader<'_>,
    leaves: &mut Vec<Leaf>,
    depth: usize,
) -> Result<ChangedDirectory, DecodeError> {
    if depth > MAX_DEPTH {
        return Err(reader.refuse(DecodeErrorKind::Invalid("nested too deep")));
    }
    let metadata = take_metadata(reader)?;
    let count = reader.varint()?;
    let mut entries = Vec::new();
    let mut previous: Option<&[u8]> = None;
    for _ in 0..count {
        let name = reader.ascending(&mut previous)?;
        if let Some(reason) = name_fault(name) {
            return Err(reader.refuse(DecodeErrorKind::Invalid(reason)));
        }
        let change = match reader.byte()? {
            DIRECTORY => Change::Directory(Box::new(take_directory(reader, leaves, depth + 1)?)),
            REMOVED => Change::Removed,
            LINK => {
                let number = reader.varint()?;
                if number >= leaves.len() as u64 {
                    return Err(reader.refuse(DecodeErrorKind::UnknownLeaf(number)));
                }
                Change::Leaf(LeafId(number as u32))
            }
            tag => {
                let leaf = take_leaf(reader, tag)?;
                let id = LeafId(leaves.len() as u32);
                leaves.push(leaf);
                Change::Leaf(id)
            }
        };
        entries.push((name.into(), change));
    }
    // Sorted already, which the map's bulk construction makes use of.
    Ok(ChangedDirectory { metadata, entries: BTreeMap::from_iter(entries) })
}
