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

/// A read-only private mapping of a whole file.
#[derive(Debug)]
pub(crate) struct Mapping {
    address: *mut libc::c_void,
    length: usize,
}

impl Mapping {
    /// Maps the file; an empty one is an error, as the kernel has it.
    pub(crate) fn open(path: &Path) -> Result<Mapping, BenchError> {
        let file = File::open(path).map_err(io_error("open", path))?;
        let length = file.metadata().map_err(io_error("look at", path))?.len() as usize;
        // SAFETY: the kernel chooses the address, the descriptor is open, and a mapping outlives
        // its descriptor.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io_error("map", path)(std::io::Error::last_os_error()));
        }
        Ok(Mapping { address, length })
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
            return Err(io_error("look at the cached pages of", path)(
                std::io::Error::last_os_error(),
            ));
        }
        let cached = resident.iter().filter(|byte| **byte & 1 == 1).count();
        Ok((pages as u64, cached as u64))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `open`, and no reference to it can outlive `self`.
        unsafe { libc::munmap(self.address, self.length) };
    }
}
