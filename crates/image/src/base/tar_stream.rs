//! Reads a tar stream entry by entry: ustar, GNU and PAX, as layers and root file systems use them.
//!
//! An own reader, since attribute values in PAX records are bytes: they may hold line breaks, and what
//! they say about sizes and times must count. Sparse files are refused; no layer has them.

use std::io::{self, Read};

use homeport_content::Timestamp;
use thiserror::Error;

const BLOCK: usize = 512;
/// Largest set of records before one entry: room for some attributes of 64 KiB.
const MAX_RECORDS: u64 = 1 << 20;
/// Largest file; beyond it sums of sizes could overflow.
const MAX_SIZE: u64 = 1 << 60;

/// Why a tar stream can't be read.
#[derive(Debug, Error)]
pub enum TarError {
    /// The stream itself failed.
    #[error("reading failed: {0}")]
    Read(#[from] io::Error),
    /// It ends inside an entry.
    #[error("it ends inside `{0}`")]
    Truncated(String),
    /// It isn't a tar stream, or is damaged.
    #[error("it is damaged near `{name}`: {fault}")]
    Damaged {
        /// The entry, or the last name read.
        name: String,
        /// What is wrong.
        fault: &'static str,
    },
}

/// Type of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// One more name of a file.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// What stands before an entry's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Type.
    pub kind: Kind,
    /// Path as written.
    pub path: Vec<u8>,
    /// Target of a link.
    pub link: Vec<u8>,
    /// Permission bits, set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a regular file.
    pub size: u64,
    /// Time of the last change.
    pub mtime: Timestamp,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes in their order.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A tar stream.
pub struct TarStream<R> {
    inner: R,
    /// Bytes of the current entry that nobody has read yet.
    left: u64,
    /// Zeros after them, up to a whole block.
    padding: u64,
    /// For messages.
    last_name: String,
}

impl<R: Read> TarStream<R> {
    /// A stream at its beginning.
    pub fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0, last_name: "the beginning".to_owned() }
    }

    /// The next entry; `None` at the end. What is left of the one before is skipped.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut records = Records::default();
        loop {
            self.skip_rest()?;
            let Some(block) = self.header()? else {
                return Ok(None);
            };
            let size = number(&block[124..136]).ok_or_else(|| self.damaged("bad size"))?;
            match block[156] {
                b'x' => records.read(&self.short_content(size)?).map_err(|fault| self.damaged(fault))?,
                // Global records are comments in practice; nothing here depends on one.
                b'g' => drop(self.short_content(size)?),
                b'L' => records.path = Some(until_zero(&self.short_content(size)?).to_vec()),
                b'K' => records.link = Some(until_zero(&self.short_content(size)?).to_vec()),
                flag => return self.entry(&block, flag, size, records).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        block: &[u8; BLOCK],
        flag: u8,
        size: u64,
        records: Records,
    ) -> Result<Entry, TarError> {
        let path = records.path.unwrap_or_else(|| path_field(block));
        self.last_name = String::from_utf8_lossy(&path).into_owned();
        if records.sparse || flag == b'S' {
            return Err(self.damaged("sparse files are not supported"));
        }
        let kind = match flag {
            // Old archives mark directories by a slash alone.
            0 | b'0' | b'7' if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            _ => return Err(self.damaged("unknown type of entry")),
        };
        // As in Go's reader, which has read every layer there is: only files have bytes.
        let size = if kind == Kind::File { records.size.unwrap_or(size) } else { 0 };
        if size > MAX_SIZE {
            return Err(self.damaged("a file of more than an exbibyte"));
        }
        self.expect(size);
        let field = |range: std::ops::Range<usize>, fault| number(&block[range]).ok_or(fault);
        let read = || -> Result<Entry, &'static str> {
            let id = |value: u64| u32::try_from(value).map_err(|_| "an owner above 32 bits");
            let seconds = field(136..148, "bad time")?;
            Ok(Entry {
                kind,
                link: records.link.unwrap_or_else(|| until_zero(&block[157..257]).to_vec()),
                mode: (field(100..108, "bad mode")? & 0o7777) as u32,
                uid: id(records.uid.map_or_else(|| field(108..116, "bad owner"), Ok)?)?,
                gid: id(records.gid.map_or_else(|| field(116..124, "bad group"), Ok)?)?,
                size,
                mtime: records.mtime.unwrap_or(Timestamp { seconds: seconds as i64, nanos: 0 }),
                device: match kind {
                    Kind::CharDevice | Kind::BlockDevice => {
                        (field(329..337, "bad device")? as u32, field(337..345, "bad device")? as u32)
                    }
                    _ => (0, 0),
                },
                xattrs: records.xattrs,
                path,
            })
        };
        read().map_err(|fault| self.damaged(fault))
    }

    /// The next header block; `None` at the end mark or the end of the stream.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Truncated(self.last_name.clone())),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum = |from: u8| -> u64 {
            let field = 148..156;
            let bytes = block.iter().enumerate();
            bytes.map(|(at, byte)| if field.contains(&at) { u64::from(from) } else { u64::from(*byte) }).sum()
        };
        if number(&block[148..156]) != Some(sum(b' ')) {
            return Err(self.damaged("the checksum of a header is wrong, or this is no tar stream"));
        }
        Ok(Some(block))
    }

    fn expect(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn short_content(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_RECORDS {
            return Err(self.damaged("the records of an entry are larger than 1 MiB"));
        }
        self.expect(size);
        let mut content = Vec::with_capacity(size as usize);
        self.read_to_end(&mut content)?;
        Ok(content)
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        let wanted = self.left + self.padding;
        self.left = 0;
        self.padding = 0;
        let skipped = io::copy(&mut (&mut self.inner).take(wanted), &mut io::sink())?;
        if skipped < wanted {
            return Err(TarError::Truncated(self.last_name.clone()));
        }
        Ok(())
    }

    fn damaged(&self, fault: &'static str) -> TarError {
        TarError::Damaged { name: self.last_name.clone(), fault }
    }
}

/// The bytes of the current entry.
impl<R: Read> Read for TarStream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.inner.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the archive ends inside `{}`", self.last_name),
            ));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// What records before an entry say about it.
#[derive(Default)]
struct Records {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Timestamp>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: bool,
}

impl Records {
    /// Reads PAX records: `LENGTH KEY=VALUE\n`, the length counting all of it.
    fn read(&mut self, mut rest: &[u8]) -> Result<(), &'static str> {
        while !rest.is_empty() {
            let blank = rest.iter().position(|byte| *byte == b' ').ok_or("a record without a length")?;
            let length: usize = decimal(&rest[..blank]).ok_or("a record with a bad length")?;
            let record = rest.get(blank + 1..length).ok_or("a record with a bad length")?;
            let (b'\n', record) = record.split_last().ok_or("an empty record")? else {
                return Err("a record without its line break");
            };
            let equals = record.iter().position(|byte| *byte == b'=').ok_or("a record without `=`")?;
            self.set(&record[..equals], &record[equals + 1..])?;
            rest = &rest[length..];
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(decimal(value).ok_or("a bad size record")?),
            b"uid" => self.uid = Some(decimal(value).ok_or("a bad owner record")?),
            b"gid" => self.gid = Some(decimal(value).ok_or("a bad group record")?),
            b"mtime" => self.mtime = Some(time(value).ok_or("a bad time record")?),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
                self.sparse |= key.starts_with(b"GNU.sparse.");
            }
        }
        Ok(())
    }
}

/// A header's number: octal text, or binary if the highest bit is set. Negative ones wrap.
fn number(field: &[u8]) -> Option<u64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Two's complement; bit 6 of the first byte is the sign.
        let start = if first & 0x40 != 0 { u64::MAX } else { 0 };
        let value = (start << 6) | u64::from(first & 0x3f);
        return Some(rest.iter().fold(value, |value, byte| (value << 8) | u64::from(*byte)));
    }
    let text = until_zero(field).trim_ascii();
    text.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

fn decimal<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `SECONDS[.FRACTION]`, possibly negative.
fn time(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{:0<9.9}", fraction).parse().ok()?;
    // The fraction of a negative time points away from the epoch, that of a timestamp always forward.
    if text.starts_with('-') && nanos > 0 {
        return Some(Timestamp { seconds: seconds.checked_sub(1)?, nanos: 1_000_000_000 - nanos });
    }
    Some(Timestamp { seconds, nanos })
}

fn path_field(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_zero(&block[..100]);
    let prefix = until_zero(&block[345..500]);
    // GNU headers (`ustar `, with a blank) use the room of the prefix for times.
    let is_posix = &block[257..263] == b"ustar\0";
    if !is_posix || prefix.is_empty() {
        return name.to_vec();
    }
    [prefix, b"/", name].concat()
}

fn until_zero(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
        let body = [b" ", key, b"=", value, b"\n"].concat();
        let length = (1..)
            .map(|digits| body.len() + digits)
            .find(|length| length.to_string().len() + body.len() == *length)
            .unwrap();
        [length.to_string().as_bytes(), &body].concat()
    }

    fn block(name: &[u8], flag: u8, size: &[u8]) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[..name.len()].copy_from_slice(name);
        block[100..107].copy_from_slice(b"0004755");
        block[108..115].copy_from_slice(b"0001750");
        block[116..123].copy_from_slice(b"0001751");
        block[124..124 + size.len()].copy_from_slice(size);
        block[136..147].copy_from_slice(b"00000000007");
        block[156] = flag;
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block
    }

    fn padded(bytes: &[u8]) -> Vec<u8> {
        let mut padded = bytes.to_vec();
        padded.resize(bytes.len().next_multiple_of(BLOCK), 0);
        padded
    }

    #[test]
    fn records_override_the_header_and_attributes_may_hold_line_breaks() {
        let records = [
            record(b"path", b"long/name"),
            record(b"mtime", b"-1.25"),
            record(b"uid", b"4000000000"),
            record(b"size", b"3"),
            record(b"SCHILY.xattr.security.capability", b"\x01\n=\0\n"),
        ]
        .concat();
        let size = format!("{:011o}", records.len());
        let stream = [
            block(b"x", b'x', size.as_bytes()),
            padded(&records),
            block(b"n", b'0', b"00000000000"),
            padded(b"abc"),
        ]
        .concat();
        let mut tar = TarStream::new(stream.as_slice());
        let entry = tar.next_entry().unwrap().unwrap();
        assert_eq!(entry.path, b"long/name");
        assert_eq!(entry.mtime, Timestamp { seconds: -2, nanos: 750_000_000 });
        assert_eq!((entry.uid, entry.gid, entry.mode), (4_000_000_000, 0o1751, 0o4755));
        assert_eq!(entry.xattrs, [(b"security.capability".to_vec(), b"\x01\n=\0\n".to_vec())]);
        let mut content = Vec::new();
        tar.read_to_end(&mut content).unwrap();
        assert_eq!(content, b"abc");
        assert_eq!(tar.next_entry().unwrap(), None);
    }

    #[test]
    fn damage_and_truncation_are_errors() {
        let mut bad_sum = block(b"n", b'0', b"0");
        bad_sum[0] = b'm';
        assert!(matches!(TarStream::new(bad_sum.as_slice()).next_entry(), Err(TarError::Damaged { .. })));
        let short = [block(b"n", b'0', b"00000001000"), vec![1; 100]].concat();
        let mut tar = TarStream::new(short.as_slice());
        tar.next_entry().unwrap();
        assert!(matches!(tar.next_entry(), Err(TarError::Truncated(name)) if name == "n"));
        let sparse = block(b"n", b'S', b"0");
        assert!(matches!(TarStream::new(sparse.as_slice()).next_entry(), Err(TarError::Damaged { .. })));
        let bomb = block(b"x", b'x', b"77777777777");
        assert!(matches!(TarStream::new(bomb.as_slice()).next_entry(), Err(TarError::Damaged { .. })));
        let half = &block(b"n", b'0', b"0")[..100];
        assert!(matches!(TarStream::new(half).next_entry(), Err(TarError::Truncated(_))));
    }

    #[test]
    fn binary_and_octal_numbers_are_read() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b" 644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0"), Some(0));
        assert_eq!(number(&[0x80, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1]), Some((2 << 56) | 1));
        assert_eq!(number(&[0xff; 12]).map(|value| value as i64), Some(-1));
        assert_eq!(number(b"9"), None);
    }
}
