//! Reading and hashing of the groups of one file.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use blake3::hazmat::ChainingValue;
use rustix::fs::{Advice, SeekFrom, fadvise};
use rustix::io::Errno;

use super::{Between, GROUP, group_range, value_of};

/// What is read at once.
const UNIT: u64 = 1 << 20;

/// What a thread hashes before it looks for more to do.
const SEGMENT: u64 = 8 << 20;

/// Where a file has data; the rest are holes.
fn data_ranges(file: &File, size: u64) -> io::Result<Vec<Range<u64>>> {
    // A small file has no hole worth the system calls.
    if size <= UNIT {
        return Ok(vec![0..size; 1]);
    }
    let mut ranges = Vec::new();
    let mut offset = 0;
    while offset < size {
        let data = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
            Ok(data) => data.min(size),
            Err(Errno::NXIO) => break,
            // The file system knows nothing of holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                ranges.push(offset..size);
                break;
            }
            Err(errno) => return Err(errno.into()),
        };
        offset = rustix::fs::seek(file, SeekFrom::Hole(data))?.min(size);
        if data < offset {
            ranges.push(data..offset);
        }
    }
    Ok(ranges)
}

/// A file of which groups are to be hashed.
pub(super) struct Work<'a> {
    file: &'a File,
    size: u64,
    data: Vec<Range<u64>>,
    between: Between<'a>,
}

impl<'a> Work<'a> {
    pub(super) fn new(file: &'a File, size: u64, between: Between<'a>) -> io::Result<Work<'a>> {
        Ok(Work { file, size, data: data_ranges(file, size)?, between })
    }

    /// Computes the values of these groups (ascending).
    pub(super) fn hash(&self, wanted: &[u64], groups: &mut [ChainingValue]) -> io::Result<()> {
        let parts: Vec<&[u64]> = wanted.chunks((SEGMENT / GROUP) as usize).collect();
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let threads = cores.min(parts.len());
        if threads <= 1 {
            let mut buffer = Vec::new();
            let mut keep = |number: u64, value| groups[number as usize] = value;
            return parts.iter().try_for_each(|part| self.hash_part(part, &mut buffer, &mut keep));
        }
        let next = AtomicUsize::new(0);
        let done = Mutex::new(groups);
        let work = || {
            let mut buffer = Vec::new();
            while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut values = Vec::with_capacity(part.len());
                let hashed =
                    self.hash_part(part, &mut buffer, &mut |number, value| values.push((number, value)));
                if let Err(error) = hashed {
                    next.store(parts.len(), Ordering::Relaxed);
                    return Err(error);
                }
                let mut groups = done.lock().unwrap_or_else(PoisonError::into_inner);
                values.into_iter().for_each(|(number, value)| groups[number as usize] = value);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            running.into_iter().try_for_each(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }

    /// Hashes groups that one thread has taken, those that lie side by side with one read for up to [`UNIT`] bytes.
    fn hash_part(
        &self,
        wanted: &[u64],
        buffer: &mut Vec<u8>,
        give: &mut dyn FnMut(u64, ChainingValue),
    ) -> io::Result<()> {
        let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else {
            return Ok(());
        };
        let span = group_range(*first, self.size).start..group_range(*last, self.size).end;
        // Several threads read one file, which the kernel's own read-ahead takes for random reads.
        if let Some(length) = NonZeroU64::new(span.end - span.start)
            && wanted.len() as u64 == last - first + 1
        {
            let _ = fadvise(self.file, span.start, Some(length), Advice::WillNeed);
        }
        let mut rest = wanted;
        while let Some(first) = rest.first() {
            let most = (UNIT / GROUP) as usize;
            let mut run = 1;
            while run < most && rest.get(run) == Some(&(first + run as u64)) {
                run += 1;
            }
            let (now, later) = rest.split_at(run);
            let range = group_range(*first, self.size).start..group_range(now[run - 1], self.size).end;
            buffer.resize((range.end - range.start) as usize, 0);
            self.fill(range.start, buffer)?;
            for (number, bytes) in now.iter().zip(parts_of(buffer)) {
                give(*number, value_of(*number, bytes, self.size));
            }
            (self.between)(range)?;
            rest = later;
        }
        Ok(())
    }

    /// Reads from `offset` on, with zeros in place of holes.
    fn fill(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset + buffer.len() as u64;
        let mut at = offset;
        let first = self.data.partition_point(|data| data.end <= offset);
        for data in self.data[first..].iter().take_while(|data| data.start < end) {
            let (start, stop) = (data.start.max(offset), data.end.min(end));
            buffer[(at - offset) as usize..(start - offset) as usize].fill(0);
            let place = &mut buffer[(start - offset) as usize..(stop - offset) as usize];
            self.file.read_exact_at(place, start).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    io::Error::new(error.kind(), "the file became shorter while it was hashed")
                }
                _ => error,
            })?;
            at = stop;
        }
        buffer[(at - offset) as usize..].fill(0);
        Ok(())
    }
}

/// The groups in a buffer that begins with one; one empty group if it is empty.
fn parts_of(buffer: &[u8]) -> impl Iterator<Item = &[u8]> {
    let empty = buffer.is_empty().then_some(buffer);
    empty.into_iter().chain(buffer.chunks(GROUP as usize))
}
