//! Reading of files as they are on the disk, past what memory remembers of them.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use homeport_content::Digest;

use crate::hashing::digest_file;

/// Reads of this size are as fast as larger ones.
const BUFFER: usize = 1 << 20;
/// What direct reads want their memory and lengths to be multiples of.
const ALIGNMENT: usize = 4096;

/// What a file turned out to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Examined {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) inode: u64,
    /// Whether mode, owner and attributes are those of an object.
    pub(crate) is_plain: bool,
}

/// Told of each part that was read. It may take its time, and an error of it ends the reading.
pub(crate) type Pace<'a> = &'a dyn Fn(u64) -> io::Result<()>;

/// Reads a file.
pub(crate) fn examine(path: &Path, pace: Pace<'_>) -> io::Result<Examined> {
    let found = path.symlink_metadata()?;
    let is_plain = found.is_file()
        && (found.uid(), found.gid(), found.mode() & 0o7777) == (0, 0, 0o444)
        && !has_attributes(path);
    let (digest, size) = match digest_direct(path, pace) {
        // The file system knows no direct reads, or not of such lengths.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let read = digest_file(&File::open(path)?)?;
            pace(read.1)?;
            read
        }
        read => read?,
    };
    Ok(Examined { digest, size, inode: found.ino(), is_plain })
}

fn has_attributes(path: &Path) -> bool {
    let mut names = [0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let mut names = names[..length].split(|byte| *byte == 0);
    // Labels of a security module belong to the place.
    names.any(|name| !name.is_empty() && name != b"security.selinux")
}

fn digest_direct(path: &Path, pace: Pace<'_>) -> io::Result<(Digest, u64)> {
    let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = Aligned::new();
    let mut offset = 0;
    loop {
        let read = file.read_at(buffer.bytes(), offset)?;
        hasher.update(&buffer.bytes()[..read]);
        offset += read as u64;
        pace(read as u64)?;
        // At the end the rest of a block comes, or nothing.
        if read == 0 || !read.is_multiple_of(ALIGNMENT) {
            return Ok((hasher.finalize().into(), offset));
        }
    }
}

/// A buffer that direct reads can go to.
struct Aligned(Vec<u8>, usize);

impl Aligned {
    fn new() -> Self {
        let memory = vec![0; BUFFER + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Self(memory, start)
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.0[self.1..self.1 + BUFFER]
    }
}
