//! What a stream is compressed with: its first bytes say more than names and media types.

use std::io::{self, BufReader, Cursor, Read};

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const BZIP2: &[u8] = b"BZh";
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0x00];

/// A buffer that is as long as reads from a disk are worth.
const BUFFER: usize = 1 << 16;

/// The stream that `compressed` is, whatever it is compressed with.
///
/// # Errors
///
/// The stream can't be read, or its compression isn't known here; then the text names it.
pub(crate) fn decompressed<'a>(mut compressed: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut head = Vec::with_capacity(XZ.len());
    compressed.by_ref().take(XZ.len() as u64).read_to_end(&mut head)?;
    let (is_gzip, is_zstd) = (head.starts_with(GZIP), head.starts_with(ZSTD));
    for (magic, name) in [(BZIP2, "bzip2"), (XZ, "xz")] {
        if head.starts_with(magic) {
            let text = format!("it is compressed with {name}, which is not unpacked here; use gzip or zstd");
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
    }
    let whole = Cursor::new(head).chain(compressed);
    Ok(if is_gzip {
        Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(BUFFER, whole)))
    } else if is_zstd {
        Box::new(zstd::stream::read::Decoder::new(whole)?)
    } else {
        Box::new(BufReader::with_capacity(BUFFER, whole))
    })
}
