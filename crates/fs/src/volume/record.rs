//! What is known of a Volume's layer by those who find it on disk.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use homeport_content::{DeltaId, SnapshotId, Stack};
use serde::{Deserialize, Serialize};

use super::VolumeError;
use crate::error::io_error;

const FORMAT: u32 = 1;

/// The state of a layer. It is replaced as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) format: u32,
    /// Of whom the layer is, in the words of who opened it.
    pub(super) note: String,
    /// The host's id for the container's root, and the number of its ids.
    pub(super) ids: Option<(u32, u32)>,
    /// The upper directory that takes changes.
    pub(super) current: Generation,
    /// An upper directory that nobody writes to, of which the store need not have everything yet.
    pub(super) given: Option<Given>,
    /// What was taken and not yet noted.
    pub(super) unnoted: Vec<Unnoted>,
}

/// An upper directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Generation {
    pub(super) number: u64,
    /// The layers that it was mounted over.
    #[serde(with = "StackText")]
    pub(super) over: Stack,
    /// Those, with what was taken from it.
    #[serde(with = "StackText")]
    pub(super) seen: Stack,
    /// Nobody writes to it any more, and all that was in it is taken or given away.
    pub(super) spent: bool,
}

/// An upper directory on its way into the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Given {
    pub(super) number: u64,
    /// The layers that the change is relative to.
    #[serde(with = "StackText")]
    pub(super) seen: Stack,
}

/// A delta that is in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unnoted {
    pub(super) delta: DeltaId,
    /// The layers that it is relative to.
    #[serde(with = "StackText")]
    pub(super) seen: Stack,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Stack")]
struct StackText {
    base: SnapshotId,
    deltas: Vec<DeltaId>,
}

impl Generation {
    /// An empty one.
    pub(super) fn fresh(number: u64, over: Stack) -> Generation {
        Generation { number, seen: over.clone(), over, spent: false }
    }
}

impl Record {
    /// Of a layer that was mounted for the first time.
    pub(super) fn new(ids: Option<(u32, u32)>, current: Generation) -> Record {
        Record { format: FORMAT, note: String::new(), ids, current, given: None, unnoted: Vec::new() }
    }

    /// Reads the record in `dir`; `None` if there is none, because the layer was never mounted.
    pub(super) fn read(dir: &Path) -> Result<Option<Record>, VolumeError> {
        let path = place(dir);
        let bytes = match fs::read(&path) {
            // It was there, and had no content yet when the power went.
            Ok(bytes) if bytes.is_empty() => return Ok(None),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("read", &path)(error).into()),
        };
        Record::parse(&bytes).map(Some).map_err(|reason| VolumeError::Record { path, reason })
    }

    /// Puts it in the place of the one in `dir`. Seen by later processes at once, durable after [`sync`].
    pub(super) fn write(&self, dir: &Path) -> Result<(), VolumeError> {
        self.prepare(dir)?.put_in_place()
    }

    /// Writes it beside the one in `dir`, so that what can fail has not failed.
    pub(super) fn prepare(&self, dir: &Path) -> Result<Prepared, VolumeError> {
        let mut bytes = serde_json::to_vec(self)
            .map_err(|error| VolumeError::Record { path: place(dir), reason: error.to_string() })?;
        bytes.push(b'\n');
        let path = dir.join("record.new");
        fs::write(&path, bytes).map_err(io_error("write", &path))?;
        Ok(Prepared { dir: dir.to_owned() })
    }

    fn parse(bytes: &[u8]) -> Result<Record, String> {
        let record: Record = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match record.format {
            FORMAT => Ok(record),
            other => Err(format!("it has format {other}, and this program knows {FORMAT}")),
        }
    }
}

/// A record that only has to be renamed.
#[must_use]
pub(super) struct Prepared {
    dir: PathBuf,
}

impl Prepared {
    pub(super) fn put_in_place(self) -> Result<(), VolumeError> {
        let path = place(&self.dir);
        fs::rename(self.dir.join("record.new"), &path).map_err(io_error("rename a new file to", &path))?;
        Ok(())
    }
}

/// Waits until the record in `dir` is on disk.
pub(super) fn sync(dir: &Path) -> Result<(), VolumeError> {
    let path = place(dir);
    File::open(&path)
        .and_then(|file| file.sync_all())
        .and_then(|()| File::open(dir)?.sync_all())
        .map_err(io_error("sync", &path))?;
    Ok(())
}

fn place(dir: &Path) -> PathBuf {
    dir.join("record")
}

#[cfg(test)]
mod tests {
    use homeport_content::Digest;

    use super::*;

    fn record() -> Record {
        let [base, one, two] = ["base", "one", "two"].map(|name| Digest::of(name.as_bytes()));
        let over = Stack::of(base).with(one);
        let current = Generation { seen: over.with(two), spent: true, ..Generation::fresh(3, over.clone()) };
        Record {
            note: "{\"sequence\": 7}".into(),
            given: Some(Given { number: 2, seen: over.clone() }),
            unnoted: vec![Unnoted { delta: two, seen: over }],
            ..Record::new(Some((100_000, 65_536)), current)
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), None);
        let mut record = record();
        record.write(dir.path()).unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), Some(record.clone()));
        record.current.spent = false;
        let prepared = record.prepare(dir.path()).unwrap();
        assert!(Record::read(dir.path()).unwrap().unwrap().current.spent);
        prepared.put_in_place().unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), Some(record));
    }

    #[test]
    fn a_record_of_another_format_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        record().write(dir.path()).unwrap();
        let path = dir.path().join("record");
        let text = fs::read_to_string(&path).unwrap();
        for (from, to) in [("\"format\":1", "\"format\":2"), ("\"base\":\"", "\"base\":\"z"), ("{", "[")] {
            fs::write(&path, text.replacen(from, to, 1)).unwrap();
            let refused = Record::read(dir.path()).unwrap_err();
            assert!(refused.to_string().contains("record"), "{refused}");
        }
    }
}
