//! What two files of one file system share on disk, and copies that share everything.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// `_IOWR('f', 11, struct fiemap)`.
const FS_IOC_FIEMAP: u64 = 0xc020_660b;

const FLAG_SYNC: u32 = 1;

const LAST: u32 = 0x1;
/// Allocated, but reads as zeros.
const UNWRITTEN: u32 = 0x800;
/// What an extent can be without doubt about where its bytes are: last, unwritten, merged, shared.
const CLEAR: u32 = LAST | UNWRITTEN | 0x1000 | 0x2000;

/// Extents asked for at once.
const MANY: usize = 512;

/// More extents than this cost more to compare than they save.
const MOST: usize = 1 << 20;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    more_reserved: [u32; 3],
}

#[repr(C)]
struct RawMap {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [RawExtent; MANY],
}

/// Part of a file: where its bytes are on disk, or `None` in a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    range: Range<u64>,
    physical: Option<u64>,
}

/// The ranges in which two files have the same bytes because they are the same on disk: shared blocks, or holes in both.
/// Nobody may be writing to the files. `None` if there is any doubt.
///
/// A file system that shares blocks never writes to those in place, so what is in one place is equal.
pub(super) fn shared_ranges(one: &File, other: &File) -> Option<Vec<Range<u64>>> {
    let (about_one, about_other) = (one.metadata().ok()?, other.metadata().ok()?);
    if about_one.dev() != about_other.dev() {
        return None;
    }
    let end = about_one.len().min(about_other.len());
    let shared = intersect(&pieces(one, end)?, &pieces(other, end)?);
    Some(shared)
}

/// The bytes of a file up to `end`, in order and without gaps. Parts that read as zeros without being holes are left out.
fn pieces(file: &File, end: u64) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut at = 0;
    let mut map = Box::new(RawMap {
        start: 0,
        length: end,
        flags: FLAG_SYNC,
        mapped: 0,
        count: MANY as u32,
        reserved: 0,
        extents: [RawExtent::default(); MANY],
    });
    let mut last = false;
    while at < end && !last {
        map.start = at;
        map.length = end - at;
        // SAFETY: the map is as large as it says, and the kernel writes to it what it has room for.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP as _, &raw mut *map) };
        if result != 0 || pieces.len() > MOST {
            return None;
        }
        let found = map.extents.get(..map.mapped as usize)?;
        if found.is_empty() {
            break;
        }
        for extent in found {
            let stop = extent.logical.checked_add(extent.length)?.min(end);
            if extent.flags & !CLEAR != 0 || stop < at {
                return None;
            }
            // The first one may begin before what was asked for.
            let start = extent.logical.max(at);
            if start > at {
                pieces.push(Piece { range: at..start.min(end), physical: None });
            }
            if extent.flags & UNWRITTEN == 0 && start < stop {
                let physical = Some(extent.physical + (start - extent.logical));
                pieces.push(Piece { range: start..stop, physical });
            }
            at = at.max(stop);
            last |= extent.flags & LAST != 0;
        }
    }
    if at < end {
        pieces.push(Piece { range: at..end, physical: None });
    }
    Some(pieces)
}

fn intersect(one: &[Piece], other: &[Piece]) -> Vec<Range<u64>> {
    let mut shared: Vec<Range<u64>> = Vec::new();
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    while let (Some(left), Some(right)) = (one.peek(), other.peek()) {
        let both = left.range.start.max(right.range.start)..left.range.end.min(right.range.end);
        let place =
            |piece: &Piece| piece.physical.map(|physical| physical + (both.start - piece.range.start));
        if both.start < both.end && place(left) == place(right) {
            match shared.last_mut() {
                Some(last) if last.end == both.start => last.end = both.end,
                _ => shared.push(both),
            }
        }
        if left.range.end <= right.range.end {
            one.next();
        } else {
            other.next();
        }
    }
    shared
}

/// Makes an empty file share all bytes of another. `false` if the file system cannot do that with these two.
pub(super) fn clone_into(from: &File, to: &File) -> io::Result<bool> {
    match rustix::fs::ioctl_ficlone(to, from) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Copies all data of a file to an empty one, and leaves its holes out. `between` is called after each part.
pub(super) fn copy_into(
    from: &File,
    to: &File,
    size: u64,
    between: &dyn Fn() -> io::Result<()>,
) -> io::Result<()> {
    const PART: u64 = 8 << 20;
    to.set_len(size)?;
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
            Err(errno) => return Err(errno.into()),
        };
        let hole = rustix::fs::seek(from, SeekFrom::Hole(data)).unwrap_or(size).min(size);
        at = data;
        while at < hole {
            let (mut source, mut target) = (at, at);
            let part = PART.min(hole - at) as usize;
            let copied =
                match rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), part) {
                    Ok(copied) => copied as u64,
                    Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                        copy_part(from, to, at, part)?
                    }
                    Err(errno) => return Err(errno.into()),
                };
            if copied == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the file became shorter while it was copied",
                ));
            }
            at += copied;
            between()?;
        }
    }
    Ok(())
}

fn copy_part(from: &File, to: &File, at: u64, length: usize) -> io::Result<u64> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; length.min(1 << 20)];
    let read = from.read_at(&mut buffer, at)?;
    to.write_all_at(&buffer[..read], at)?;
    Ok(read as u64)
}

/// Starts to write out what is dirty in a range, and does not wait.
pub(super) fn start_writing(file: &File, range: Range<u64>) {
    // SAFETY: the call takes integers only. It is a hint: what fails here fails again when the file is synced.
    unsafe {
        libc::sync_file_range(
            file.as_raw_fd(),
            range.start as i64,
            (range.end - range.start) as i64,
            libc::SYNC_FILE_RANGE_WRITE,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(range: Range<u64>, physical: Option<u64>) -> Piece {
        Piece { range, physical }
    }

    #[test]
    fn ranges_are_shared_where_both_are_at_one_place_however_they_are_cut() {
        let one = [piece(0..10, Some(100)), piece(10..20, None), piece(20..40, Some(200))];
        let cut =
            [piece(0..4, Some(100)), piece(4..12, Some(104)), piece(12..22, None), piece(22..40, Some(202))];
        assert_eq!(intersect(&one, &one), vec![0..40; 1]);
        assert_eq!(intersect(&one, &cut), vec![0..10, 12..20, 22..40]);
        assert_eq!(intersect(&one, &[piece(0..10, Some(101)), piece(15..20, None)]), vec![15..20; 1]);
        assert_eq!(intersect(&one, &[]), vec![0..0; 0]);
    }

    #[test]
    fn a_copy_has_the_bytes_and_the_holes() {
        use std::os::unix::fs::FileExt;
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.write_all_at(&[7; 5000], 3 << 20).unwrap();
        from.write_all_at(b"end", 40 << 20).unwrap();
        let size = from.metadata().unwrap().len();
        copy_into(&from, &to, size, &|| Ok(())).unwrap();
        let read = |file: &File| {
            let mut bytes = vec![0; size as usize];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        assert!(read(&from) == read(&to));
        assert!(to.metadata().unwrap().blocks() * 512 < 1 << 20);
    }
}
