//! Directories for work in progress, on the file system of the store.

use std::fs;
use std::path::{Path, PathBuf};

use crate::clock::Time;
use crate::error::io_error;
use crate::{Hold, Store, StoreError};

const PREFIX: &str = "work-";

/// A directory for work in progress. It is removed with all its content when this is dropped; if
/// the process ends before, by the next collection of garbage or the next start.
#[derive(Debug)]
pub struct ScratchDir {
    dir: tempfile::TempDir,
    /// Says to collections that the directory is in use. After it, so that it is there as long.
    hold: Hold,
}

impl ScratchDir {
    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The hold that comes with it.
    pub fn hold(&self) -> &Hold {
        &self.hold
    }
}

impl Store {
    /// A new directory on the file system of the store.
    pub fn scratch_dir(&self) -> Result<ScratchDir, StoreError> {
        let hold = self.hold();
        let scratch = self.scratch();
        let dir = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", hold.start()))
            .tempdir_in(&scratch)
            .map_err(io_error("make a directory in", &scratch))?;
        Ok(ScratchDir { dir, hold })
    }

    pub(crate) fn scratch(&self) -> PathBuf {
        self.dir.join("scratch")
    }

    /// What processes that are gone left in scratch: what was begun before the oldest live hold.
    pub(crate) fn leftovers(&self, cutoff: Time) -> Result<Vec<PathBuf>, StoreError> {
        let scratch = self.scratch();
        let mut found = Vec::new();
        for entry in fs::read_dir(&scratch).map_err(io_error("list", &scratch))? {
            let entry = entry.map_err(io_error("list", &scratch))?;
            // What has no time in its name is not of this version.
            let begun = entry.file_name().to_str().and_then(begun).unwrap_or(0);
            if begun < cutoff {
                found.push(entry.path());
            }
        }
        Ok(found)
    }
}

fn begun(name: &str) -> Option<Time> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}
