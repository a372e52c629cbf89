//! Digests of files, without reading holes or holding contents in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use homeport_content::Digest;
use rustix::fs::SeekFrom;
use rustix::io::Errno;

const BUFFER: usize = 256 * 1024;
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Digest and size of a whole open file, whatever its position is. The position may change.
///
/// Holes are hashed as zeros without being read from the disk.
pub fn digest_file(file: &File) -> io::Result<(Digest, u64)> {
    let size = file.metadata()?.len();
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER.min(usize::try_from(size).unwrap_or(BUFFER).max(1))];
    let mut offset = 0;
    // A file of one buffer has no hole worth two system calls.
    let sparse = size > BUFFER as u64;
    while offset < size {
        let (data, hole) = if sparse { next_extent(file, offset, size)? } else { (offset, size) };
        hash_zeros(&mut hasher, data - offset);
        offset = data;
        while offset < hole {
            let wanted = buffer.len().min((hole - offset) as usize);
            let read = file.read_at(&mut buffer[..wanted], offset)?;
            if read == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the file became shorter while it was hashed",
                ));
            }
            hasher.update(&buffer[..read]);
            offset += read as u64;
        }
    }
    Ok((hasher.finalize().into(), size))
}

/// Where the next data begins and ends at or after `offset`; both `size` if there is none.
fn next_extent(file: &File, offset: u64, size: u64) -> io::Result<(u64, u64)> {
    let data = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(data) => data.min(size),
        Err(Errno::NXIO) => return Ok((size, size)),
        // The file system knows nothing of holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok((offset, size)),
        Err(errno) => return Err(errno.into()),
    };
    let hole = rustix::fs::seek(file, SeekFrom::Hole(data))?;
    Ok((data, hole.min(size)))
}

fn hash_zeros(hasher: &mut blake3::Hasher, mut count: u64) {
    while count > 0 {
        let part = count.min(ZEROS.len() as u64);
        hasher.update(&ZEROS[..part as usize]);
        count -= part;
    }
}
