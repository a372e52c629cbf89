//! Which blocks of an upload arrived: a file that is only appended to.
//!
//! ```text
//! "HPUPLD1\n"  size of the file: u64                  once
//! index: u64   length: u64   SHA-256: 32 bytes        for each block, the last one of an index counts
//! ```
//! Numbers are little-endian; `length` is what the client sent, without the zeros that it left out. A crash may cut
//! the last record or leave anything in it, which does no harm: what a record says is checked before it is believed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{BLOCK_BYTES, BlockName, UploadKey};

const MAGIC: &[u8; 8] = b"HPUPLD1\n";
const HEADER: usize = 16;
const RECORD: usize = 48;

/// What is known of a block that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) name: BlockName,
    /// Bytes before the zeros at its end.
    pub(super) length: u64,
}

/// An upload of an earlier run.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) key: UploadKey,
    pub(super) size: u64,
    pub(super) arrived: BTreeMap<usize, Arrival>,
}

pub(super) fn data_path(directory: &Path, key: &UploadKey) -> PathBuf {
    directory.join(format!("{key}.data"))
}

pub(super) fn journal_path(directory: &Path, key: &UploadKey) -> PathBuf {
    directory.join(format!("{key}.journal"))
}

/// Begins the journal of a file of `size` bytes.
pub(super) fn create(path: &Path, size: u64) -> io::Result<()> {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..].copy_from_slice(&size.to_le_bytes());
    File::create(path)?.write_all(&header)
}

/// Adds a block.
pub(super) fn append(path: &Path, index: usize, arrived: &Arrival) -> io::Result<()> {
    let mut record = [0; RECORD];
    record[..8].copy_from_slice(&(index as u64).to_le_bytes());
    record[8..16].copy_from_slice(&arrived.length.to_le_bytes());
    record[16..].copy_from_slice(&arrived.name);
    // One write, so that records of threads don't mix.
    File::options().append(true).open(path)?.write_all(&record)
}

/// Every upload in a directory. What can't be one is removed.
pub(super) fn read_all(directory: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let key: Option<UploadKey> = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        let Some(key) = key else { continue };
        let (data, journal) = (data_path(directory, &key), journal_path(directory, &key));
        match read(&journal, key) {
            Some(upload) if data.metadata().is_ok_and(|data| data.len() == upload.size) => {
                if path == journal {
                    found.push(upload);
                }
            }
            _ => {
                for part in [journal, data] {
                    match fs::remove_file(part) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                }
            }
        }
    }
    Ok(found)
}

fn read(path: &Path, key: UploadKey) -> Option<Found> {
    decode(&fs::read(path).ok()?, key)
}

/// What the bytes of a journal say; `None` if they are none.
pub(super) fn decode(bytes: &[u8], key: UploadKey) -> Option<Found> {
    let (header, records) = bytes.split_at_checked(HEADER)?;
    let size = number(header.strip_prefix(MAGIC)?)?;
    let blocks = size.div_ceil(BLOCK_BYTES);
    let mut arrived = BTreeMap::new();
    for record in records.chunks_exact(RECORD) {
        let (index, length) = (number(&record[..8])?, number(&record[8..16])?);
        let room = BLOCK_BYTES.min(size.saturating_sub(index.saturating_mul(BLOCK_BYTES)));
        if index >= blocks || length > room {
            continue;
        }
        let name = record[16..].try_into().ok()?;
        arrived.insert(usize::try_from(index).ok()?, Arrival { name, length });
    }
    Some(Found { key, size, arrived })
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use homeport_fuzz::Target;

    use super::*;

    fn journal(size: u64, records: &[(u64, u64)]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(size.to_le_bytes());
        for (index, length) in records {
            bytes.extend(index.to_le_bytes());
            bytes.extend(length.to_le_bytes());
            bytes.extend([7; 32]);
        }
        bytes
    }

    #[test]
    fn fuzz_journals() {
        let seeds = [journal(0, &[]), journal(3 * BLOCK_BYTES + 1, &[(0, BLOCK_BYTES), (3, 1), (0, 5)])];
        Target::new(env!("CARGO_MANIFEST_DIR"), "journals").fuzz(seeds, |bytes| {
            let key = "00".repeat(32).parse().unwrap();
            let Some(found) = decode(bytes, key) else { return "none".to_owned() };
            for (index, arrival) in &found.arrived {
                let end = (*index as u64)
                    .checked_mul(BLOCK_BYTES)
                    .and_then(|start| start.checked_add(arrival.length));
                assert!(end.is_some_and(|end| end <= found.size), "block {index} is outside of {found:?}");
            }
            format!("a journal of {} blocks", ["no", "one", "some"][found.arrived.len().min(2)])
        });
    }
}
