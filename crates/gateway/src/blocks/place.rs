//! The bytes of one block inside a file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use blake3::hazmat::ChainingValue;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::BlockName;
use super::tree::BlockHasher;

const BUFFER: usize = 256 * 1024;
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// What lies in a block's place.
pub(super) struct Content {
    /// SHA-256 of the first bytes.
    pub(super) name: BlockName,
    /// Value of the whole place in the tree of the file's hash.
    pub(super) value: ChainingValue,
    /// Whether zeros follow the first bytes.
    pub(super) zeros_follow: bool,
}

/// Makes a place all zeros, as a hole where the file system can.
pub(super) fn clear(file: &File, start: u64, length: u64) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, start, length) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            let mut at = 0;
            while at < length {
                let part = ZEROS.len().min((length - at) as usize);
                file.write_all_at(&ZEROS[..part], start + at)?;
                at += part as u64;
            }
            Ok(())
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Hashes the place at `start` in a file of `size` bytes: all `room` bytes of it, of which `length` are the block's.
pub(super) fn examine(file: &File, start: u64, room: u64, length: u64, size: u64) -> io::Result<Content> {
    let mut name = Sha256::new();
    let mut value = BlockHasher::new(start, size);
    let mut zeros_follow = true;
    let mut buffer = vec![0; BUFFER.min(room as usize)];
    let mut at = 0;
    while at < room {
        let end = if at < length { length } else { room };
        let part = buffer.len().min((end - at) as usize);
        let bytes = &mut buffer[..part];
        file.read_exact_at(bytes, start + at)?;
        if at < length {
            name.update(&*bytes);
        } else {
            zeros_follow &= bytes.iter().all(|byte| *byte == 0);
        }
        value.update(bytes);
        at += part as u64;
    }
    Ok(Content { name: name.finalize().into(), value: value.finish(), zeros_follow })
}

/// What a client may call the `room` bytes at `start` of a file.
pub(super) struct Names {
    /// Bytes before the zeros at their end.
    pub(super) length: u64,
    /// The name without those zeros.
    pub(super) cut: BlockName,
    /// The name with them.
    pub(super) whole: BlockName,
}

/// Hashes a place as every client does. None if the file ends before.
pub(super) fn names(file: &File, start: u64, room: u64) -> io::Result<Option<Names>> {
    let mut buffer = vec![0; BUFFER.min(room as usize)];
    // Up to here without the zeros that were read last.
    let mut cut = Sha256::new();
    let (mut length, mut at) = (0, 0);
    while at < room {
        let part = buffer.len().min((room - at) as usize);
        let bytes = &mut buffer[..part];
        match file.read_exact_at(bytes, start + at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            update_zeros(&mut cut, at - length);
            cut.update(&bytes[..=last]);
            length = at + last as u64 + 1;
        }
        at += part as u64;
    }
    let mut whole = cut.clone();
    update_zeros(&mut whole, room - length);
    Ok(Some(Names { length, cut: cut.finalize().into(), whole: whole.finalize().into() }))
}

/// The name of so many zeros.
pub(super) fn name_of_zeros(count: u64) -> BlockName {
    let mut hash = Sha256::new();
    update_zeros(&mut hash, count);
    hash.finalize().into()
}

fn update_zeros(hash: &mut Sha256, mut count: u64) {
    while count > 0 {
        let part = count.min(ZEROS.len() as u64);
        hash.update(&ZEROS[..part as usize]);
        count -= part;
    }
}

/// Copies bytes between files: as shared extents where the file system can, else inside the kernel, else by hand.
/// False if the source ends early.
pub(super) fn copy(from: &File, from_start: u64, to: &File, to_start: u64, length: u64) -> io::Result<bool> {
    let (mut from_at, mut to_at) = (from_start, to_start);
    let end = from_start + length;
    while from_at < end {
        let wanted = (end - from_at) as usize;
        match rustix::fs::copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), wanted) {
            Ok(0) => return Ok(false),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM) => {
                return copy_by_hand(from, from_at, to, to_at, end - from_at);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(true)
}

fn copy_by_hand(from: &File, from_start: u64, to: &File, to_start: u64, length: u64) -> io::Result<bool> {
    let mut buffer = vec![0; BUFFER.min(length as usize)];
    let mut at = 0;
    while at < length {
        let part = buffer.len().min((length - at) as usize);
        match from.read_exact_at(&mut buffer[..part], from_start + at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other?,
        }
        to.write_all_at(&buffer[..part], to_start + at)?;
        at += part as u64;
    }
    Ok(true)
}
