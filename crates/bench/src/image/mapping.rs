//! Files in memory, and how much of them is there already.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use crate::BenchError;
use crate::error::io_error;

/// Bytes of a page of memory.
pub(crate) fn page_size() -> usize {
    // SAFETY: it only asks for a constant of the system.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// Where a mapping begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Where the kernel wants it, as programs do it.
    Kernel,
    /// At a multiple of the size of a huge page, so that the kernel can map large parts of the
    /// page cache at once.
    Aligned,
}

const HUGE_PAGE: usize = 2 << 20;

/// A read-only private mapping of a whole file.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// The file's bytes: `length` of them.
    address: *mut libc::c_void,
    length: usize,
    /// The whole range that is to be unmapped; it may begin before the file does.
    range: (*mut libc::c_void, usize),
}

impl Mapping {
    /// Maps the file; an empty one is an error, as the kernel has it.
    pub(crate) fn open(path: &Path, placement: Placement) -> Result<Mapping, BenchError> {
        let file = File::open(path).map_err(io_error("open", path))?;
        let length = file.metadata().map_err(io_error("look at", path))?.len() as usize;
        let descriptor = file.as_raw_fd();
        let failed = || io_error("map", path)(std::io::Error::last_os_error());
        let anywhere = std::ptr::null_mut();
        if placement == Placement::Kernel {
            // SAFETY: the kernel chooses the address, the descriptor is open, and a mapping
            // outlives its descriptor.
            let address =
                unsafe { libc::mmap(anywhere, length, libc::PROT_READ, libc::MAP_PRIVATE, descriptor, 0) };
            if address == libc::MAP_FAILED {
                return Err(failed());
            }
            return Ok(Mapping { address, length, range: (address, length) });
        }
        let reserved = length + HUGE_PAGE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: the kernel chooses the address; nothing can be accessed there yet.
        let begin = unsafe { libc::mmap(anywhere, reserved, libc::PROT_NONE, flags, -1, 0) };
        if begin == libc::MAP_FAILED {
            return Err(failed());
        }
        let before = begin.addr().next_multiple_of(HUGE_PAGE) - begin.addr();
        let mapping = Mapping { address: begin.wrapping_byte_add(before), length, range: (begin, reserved) };
        let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
        // SAFETY: the range lies within the one just reserved, which is nobody else's.
        let address = unsafe { libc::mmap(mapping.address, length, libc::PROT_READ, flags, descriptor, 0) };
        if address == libc::MAP_FAILED {
            return Err(failed());
        }
        Ok(mapping)
    }

    /// The content. The files of a benchmark don't change while they are mapped.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping has this length and lives as long as `self`; nobody writes to the
        // file, which is in a directory of this run alone, or shortens it.
        unsafe { std::slice::from_raw_parts(self.address.cast(), self.length) }
    }

    /// Number of its pages, and of those in the page cache.
    pub(crate) fn residency(&self, path: &Path) -> Result<(u64, u64), BenchError> {
        let pages = self.length.div_ceil(page_size());
        let mut resident = vec![0_u8; pages];
        // SAFETY: the range is the mapping's own, and the vector has a byte for each page of it.
        let result = unsafe { libc::mincore(self.address, self.length, resident.as_mut_ptr()) };
        if result != 0 {
            return Err(io_error("look at the cached pages of", path)(std::io::Error::last_os_error()));
        }
        let cached = resident.iter().filter(|byte| **byte & 1 == 1).count();
        Ok((pages as u64, cached as u64))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `open`, and no reference to it can outlive `self`.
        unsafe { libc::munmap(self.range.0, self.range.1) };
    }
}
