//! Hashing of a content while it is written.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use blake3::hazmat::ChainingValue;

use super::{GROUP, Outboard, value_of};

/// What is read, written and hashed at once.
const BLOCK: usize = 1 << 20;

/// Threads help with contents that have at least so many blocks.
const MANY: u64 = 4;

/// Blocks after which what was written is sent to the disk, so that there is little to wait for at the end.
const WRITTEN: u64 = 8;

/// What went wrong while copying: on the reading or on the writing side.
pub(crate) enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// Copies all of `reader`, with `head` before it, to an empty file, and hashes what is written.
pub(crate) fn copy(head: &[u8], reader: &mut impl Read, writer: &mut File) -> Result<Outboard, CopyError> {
    let mut source = head.chain(reader);
    let mut hashed = Hashed::default();
    let mut buffer = vec![0; BLOCK];
    let mut number = 0;
    loop {
        let length = next_block(&mut source, writer, &mut buffer, number)?;
        hashed.size += length as u64;
        let is_last = length < BLOCK;
        if !is_last && number >= MANY {
            hashed.add(number, &buffer, u64::MAX);
            return copy_with_threads(source, writer, hashed, number + 1);
        }
        // A full block has more than one group, so that its values do not depend on how much follows.
        if length > 0 || number == 0 {
            hashed.add(number, &buffer[..length], if is_last { hashed.size } else { u64::MAX });
        }
        if is_last {
            return Ok(hashed.finish());
        }
        number += 1;
    }
}

/// Reads a block, shorter only at the end of all, and writes it.
fn next_block(
    source: &mut impl Read,
    writer: &mut File,
    buffer: &mut [u8],
    number: u64,
) -> Result<usize, CopyError> {
    let mut length = 0;
    while length < buffer.len() {
        match source.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CopyError::Read(error)),
        }
    }
    writer.write_all(&buffer[..length]).map_err(CopyError::Write)?;
    if (number + 1).is_multiple_of(WRITTEN) {
        let start = (number + 1 - WRITTEN) * BLOCK as u64;
        // SAFETY: the call takes integers only. It is a hint: what fails here fails again when the file is synced.
        unsafe {
            let length = (WRITTEN * BLOCK as u64) as i64;
            libc::sync_file_range(writer.as_raw_fd(), start as i64, length, libc::SYNC_FILE_RANGE_WRITE);
        }
    }
    Ok(length)
}

/// Goes on with block `number` on this thread, while others hash.
fn copy_with_threads(
    mut source: impl Read,
    writer: &mut File,
    mut hashed: Hashed,
    mut number: u64,
) -> Result<Outboard, CopyError> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let (sender, receiver) = sync_channel(cores);
    let receiver = Mutex::new(receiver);
    let spare = Mutex::new(Vec::new());
    let all = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(|| hash_blocks(&receiver, &spare))).collect();
        let copied = (|sender: SyncSender<_>| {
            loop {
                let mut buffer = spare_of(&spare).pop().unwrap_or_else(|| vec![0; BLOCK]);
                let length = next_block(&mut source, writer, &mut buffer, number)?;
                hashed.size += length as u64;
                let is_last = length < BLOCK;
                buffer.truncate(length);
                // The threads take until the sender is gone.
                if length > 0 && sender.send((number, buffer)).is_err() {
                    return Err(CopyError::Read(io::Error::other("the threads that hash are gone")));
                }
                if is_last {
                    return Ok(());
                }
                number += 1;
            }
        })(sender);
        for thread in threads {
            match thread.join() {
                Ok(values) => hashed.values.extend(values),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        copied.map(|()| hashed)
    });
    all.map(Hashed::finish)
}

fn hash_blocks(
    receiver: &Mutex<Receiver<(u64, Vec<u8>)>>,
    spare: &Mutex<Vec<Vec<u8>>>,
) -> Vec<(u64, ChainingValue)> {
    let mut hashed = Hashed::default();
    loop {
        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, block)) = next else { return hashed.values };
        hashed.add(number, &block, u64::MAX);
        if block.len() == BLOCK {
            spare_of(spare).push(block);
        }
    }
}

fn spare_of(spare: &Mutex<Vec<Vec<u8>>>) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
    spare.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Values of groups, in any order.
#[derive(Default)]
struct Hashed {
    size: u64,
    values: Vec<(u64, ChainingValue)>,
}

impl Hashed {
    /// Hashes the block with this number, of a content of `size` bytes; any size of more than a group is as good.
    fn add(&mut self, number: u64, block: &[u8], size: u64) {
        let first = number * (BLOCK as u64 / GROUP);
        if block.is_empty() {
            self.values.push((first, value_of(first, block, size)));
        }
        let groups = (first..).zip(block.chunks(GROUP as usize));
        self.values.extend(groups.map(|(number, bytes)| (number, value_of(number, bytes, size))));
    }

    fn finish(mut self) -> Outboard {
        self.values.sort_unstable_by_key(|(number, _)| *number);
        Outboard { size: self.size, groups: self.values.into_iter().map(|(_, value)| value).collect() }
    }
}
