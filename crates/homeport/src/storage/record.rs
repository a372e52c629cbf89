//! What a data directory says of the file system that is mounted over it.
//!
//! `storage.json` is there twice: in the directory itself, where it says which file to mount, and in what is
//! mounted, where it says that this is it. So whoever looks sees which of the two is in sight.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::data_dir::replace_file;

pub(super) const RECORD: &str = "storage.json";
/// The file, where no other is named.
pub(super) const USUAL_FILE: &str = "storage.xfs";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StorageRecord {
    /// The same in both records.
    pub(super) id: String,
    /// The file, from the data directory on.
    pub(super) file: PathBuf,
    pub(super) size: u64,
    /// Set in the record that lies within the file system.
    #[serde(default)]
    pub(super) inside: bool,
    /// Names in the directory whose content was moved into the file system, and which are to be removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) moved: Vec<PathBuf>,
}

impl StorageRecord {
    /// The record that is in sight in a directory.
    pub(super) fn read(directory: &Path) -> io::Result<Option<StorageRecord>> {
        match std::fs::read(directory.join(RECORD)) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(io::Error::from),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        replace_file(&directory.join(RECORD), &text, 0o644)?;
        std::fs::File::open(directory)?.sync_all()
    }

    /// The file's whole path.
    pub(super) fn path(&self, data_dir: &Path) -> PathBuf {
        data_dir.join(&self.file)
    }
}
