//! The canonical encoding of a [`Tree`], version 1. That of a [`Delta`](crate::Delta) is made of the same parts.
//!
//! A tree has exactly one encoding, and every accepted input is the encoding of its tree, so
//! the digest of the bytes names the content.
//!
//! ```text
//! tree      = magic "HPTREE" · version 0x01 · directory
//! directory = metadata · varint count · count × (bytes name · entry)      names strictly ascending
//! entry     = 0x00 directory
//!           | 0x01 metadata · bytes content                               inline file, ≤ 512 bytes
//!           | 0x02 metadata · digest[32] · varint size                    file kept as an object
//!           | 0x03 metadata · bytes target                                symbolic link
//!           | 0x04 metadata                                               named pipe
//!           | 0x05 metadata · varint device                               character device, not 0
//!           | 0x06 metadata · varint device                               block device
//!           | 0x07 varint leaf                                            one more name of a leaf
//! metadata  = varint mode · varint uid · varint gid · zigzag seconds · varint nanos
//!             · varint count · count × (bytes name · bytes value)         names strictly ascending
//! bytes     = varint length · length bytes
//! varint    = LEB128, shortest form, at most 64 bits;  zigzag = varint of (n << 1) ^ (n >> 63)
//! ```
//!
//! Leaves are numbered from 0 in the order of their first names, depth first in name order; a
//! leaf is written at its first name and `0x07` refers back to it. Devices are `st_rdev` numbers.
//! Nothing follows the root directory.
//!
//! Limits, which every accepted tree keeps to: names 1 to 255 bytes, without `/` or zero, not `.`
//! or `..`; link targets 1 to 4000 bytes; 32-bit device numbers, no character device 0; at most
//! 200 attributes of 65535 bytes each and 200 KiB together; directories at most [`MAX_DEPTH`]
//! deep below the root; nanoseconds below 10^9; modes within 07777.
//!
//! Decoding allocates no more than a small multiple of the input's length, whatever counts and
//! lengths it claims. There is no compression and no index: trees are read whole.
//!
//! [`MAX_DEPTH`]: crate::MAX_DEPTH

mod reader;

use std::collections::{BTreeMap, HashMap};

use crate::tree::{kind_fault, metadata_fault, name_fault};
use crate::{Digest, Directory, Entry, FileContent, Leaf, LeafId, LeafKind, MAX_DEPTH};
use crate::{Metadata, Timestamp, Tree};
pub(crate) use reader::Reader;
pub use reader::{DecodeError, DecodeErrorKind};

const MAGIC: &[u8] = b"HPTREE";
pub(crate) const VERSION: u8 = 1;

pub(crate) const DIRECTORY: u8 = 0;
const INLINE: u8 = 1;
const OBJECT: u8 = 2;
const SYMLINK: u8 = 3;
const FIFO: u8 = 4;
const CHAR_DEVICE: u8 = 5;
const BLOCK_DEVICE: u8 = 6;
pub(crate) const LINK: u8 = 7;

pub(crate) fn encode(tree: &Tree) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + tree.leaves.len() * 64);
    out.extend_from_slice(MAGIC);
    out.push(VERSION);
    let mut numbers = HashMap::new();
    put_directory(&mut out, &tree.root, tree, &mut numbers);
    out
}

fn put_directory(out: &mut Vec<u8>, directory: &Directory, tree: &Tree, numbers: &mut HashMap<LeafId, u64>) {
    put_metadata(out, &directory.metadata);
    put_varint(out, directory.entries.len() as u64);
    for (name, entry) in &directory.entries {
        put_bytes(out, name);
        match entry {
            Entry::Directory(directory) => {
                out.push(DIRECTORY);
                put_directory(out, directory, tree, numbers);
            }
            Entry::Leaf(id) => {
                let next = numbers.len() as u64;
                match (numbers.get(id), tree.leaf(*id)) {
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

pub(crate) fn put_leaf(out: &mut Vec<u8>, leaf: &Leaf) {
    let tag = match &leaf.kind {
        LeafKind::File(FileContent::Inline(_)) => INLINE,
        LeafKind::File(FileContent::Object { .. }) => OBJECT,
        LeafKind::Symlink(_) => SYMLINK,
        LeafKind::Fifo => FIFO,
        LeafKind::CharDevice(_) => CHAR_DEVICE,
        LeafKind::BlockDevice(_) => BLOCK_DEVICE,
    };
    out.push(tag);
    put_metadata(out, &leaf.metadata);
    match &leaf.kind {
        LeafKind::File(FileContent::Inline(bytes)) | LeafKind::Symlink(bytes) => {
            put_bytes(out, bytes);
        }
        LeafKind::File(FileContent::Object { digest, size }) => {
            out.extend_from_slice(digest.as_bytes());
            put_varint(out, *size);
        }
        LeafKind::Fifo => {}
        LeafKind::CharDevice(device) | LeafKind::BlockDevice(device) => put_varint(out, *device),
    }
}

pub(crate) fn put_metadata(out: &mut Vec<u8>, metadata: &Metadata) {
    put_varint(out, metadata.mode.into());
    put_varint(out, metadata.uid.into());
    put_varint(out, metadata.gid.into());
    let seconds = metadata.mtime.seconds;
    put_varint(out, ((seconds << 1) ^ (seconds >> 63)) as u64);
    put_varint(out, metadata.mtime.nanos.into());
    put_varint(out, metadata.xattrs.len() as u64);
    for (name, value) in &metadata.xattrs {
        put_bytes(out, name);
        put_bytes(out, value);
    }
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Tree, DecodeError> {
    let mut reader = Reader::new(bytes);
    if reader.take(MAGIC.len())? != MAGIC {
        return Err(reader.refuse(DecodeErrorKind::NotATree));
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
    Ok(Tree { root, leaves })
}

fn take_directory(
    reader: &mut Reader<'_>,
    leaves: &mut Vec<Leaf>,
    depth: usize,
) -> Result<Directory, DecodeError> {
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
        let entry = match reader.byte()? {
            DIRECTORY => Entry::Directory(Box::new(take_directory(reader, leaves, depth + 1)?)),
            LINK => {
                let number = reader.varint()?;
                if number >= leaves.len() as u64 {
                    return Err(reader.refuse(DecodeErrorKind::UnknownLeaf(number)));
                }
                Entry::Leaf(LeafId(number as u32))
            }
            tag => {
                let leaf = take_leaf(reader, tag)?;
                let id = LeafId(leaves.len() as u32);
                leaves.push(leaf);
                Entry::Leaf(id)
            }
        };
        entries.push((name.into(), entry));
    }
    // Sorted already, which the map's bulk construction makes use of.
    let entries = BTreeMap::from_iter(entries);
    Ok(Directory { metadata, entries })
}

pub(crate) fn take_leaf(reader: &mut Reader<'_>, tag: u8) -> Result<Leaf, DecodeError> {
    if !(INLINE..=BLOCK_DEVICE).contains(&tag) {
        return Err(reader.refuse(DecodeErrorKind::UnknownTag(tag)));
    }
    let metadata = take_metadata(reader)?;
    let kind = match tag {
        INLINE => LeafKind::File(FileContent::Inline(reader.bytes()?.into())),
        OBJECT => {
            let digest = reader.take_array::<32>()?;
            LeafKind::File(FileContent::Object { digest: Digest::from_bytes(digest), size: reader.varint()? })
        }
        SYMLINK => LeafKind::Symlink(reader.bytes()?.into()),
        FIFO => LeafKind::Fifo,
        CHAR_DEVICE => LeafKind::CharDevice(reader.varint()?),
        _ => LeafKind::BlockDevice(reader.varint()?),
    };
    match kind_fault(&kind) {
        Some(reason) => Err(reader.refuse(DecodeErrorKind::Invalid(reason))),
        None => Ok(Leaf { metadata, kind }),
    }
}

pub(crate) fn take_metadata(reader: &mut Reader<'_>) -> Result<Metadata, DecodeError> {
    let mode = reader.varint_u32()?;
    let uid = reader.varint_u32()?;
    let gid = reader.varint_u32()?;
    let zigzag = reader.varint()?;
    let nanos = reader.varint_u32()?;
    let count = reader.varint()?;
    let mut xattrs = BTreeMap::new();
    let mut previous = None;
    for _ in 0..count {
        let name = reader.ascending(&mut previous)?;
        xattrs.insert(name.into(), reader.bytes()?.into());
    }
    let metadata = Metadata {
        mode,
        uid,
        gid,
        mtime: Timestamp { seconds: (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64), nanos },
        xattrs,
    };
    match metadata_fault(&metadata) {
        Some(reason) => Err(reader.refuse(DecodeErrorKind::Invalid(reason))),
        None => Ok(metadata),
    }
}
