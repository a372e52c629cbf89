//! The directory that a benchmark writes to.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use crate::BenchError;
use crate::error::io_error;

const PREFIX: &str = "homeport-bench-";
const LOCK: &str = "lock";

/// A directory that is removed with all its content when this is dropped. What a killed run left
/// is removed by the next one.
#[derive(Debug)]
pub(crate) struct Scratch {
    dir: TempDir,
    _lock: File,
}

impl Scratch {
    /// Makes a directory below `parent`, which must exist.
    pub(crate) fn create(parent: &Path) -> Result<Scratch, BenchError> {
        // Absolute, because mounts are made by path.
        let parent = fs::canonicalize(parent).map_err(io_error("find", parent))?;
        remove_leftovers(&parent)?;
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(&parent)
            .map_err(io_error("make a directory in", &parent))?;
        // It gets its name once it is locked: what has the name and no lock is a leftover.
        let unnamed = dir.path().join("new-lock");
        let lock = File::create(&unnamed).map_err(io_error("create", &unnamed))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(io_error("lock", &unnamed))?;
        fs::rename(&unnamed, dir.path().join(LOCK)).map_err(io_error("rename", &unnamed))?;
        Ok(Scratch { dir, _lock: lock })
    }

    /// Makes an empty directory with this name.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf, BenchError> {
        let path = self.dir.path().join(name);
        fs::create_dir(&path).map_err(io_error("make the directory", &path))?;
        Ok(path)
    }

    /// Removes the directory now, and says if that fails.
    pub(crate) fn remove(self) -> Result<(), BenchError> {
        let path = self.dir.path().to_owned();
        self.dir.close().map_err(io_error("remove", &path))
    }
}

fn remove_leftovers(parent: &Path) -> Result<(), BenchError> {
    for entry in fs::read_dir(parent).map_err(io_error("list", parent))? {
        let entry = entry.map_err(io_error("list", parent))?;
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let path = entry.path();
        let Ok(lock) = File::open(path.join(LOCK)) else {
            continue;
        };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            fs::remove_dir_all(&path).map_err(io_error("remove what was left in", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_run_removes_what_a_dead_one_left_and_spares_a_living_one() {
        let parent = tempfile::tempdir().unwrap();
        let living = Scratch::create(parent.path()).unwrap();
        let dead = parent.path().join("homeport-bench-dead");
        fs::create_dir_all(dead.join("store")).unwrap();
        File::create(dead.join(LOCK)).unwrap();
        let other = parent.path().join("homeport-bench-other");
        fs::create_dir(&other).unwrap();

        let new = Scratch::create(parent.path()).unwrap();
        assert!(!dead.exists());
        assert!(other.exists(), "a directory without a lock is not known to be a leftover");
        let kept = living.directory("store").unwrap();
        assert!(kept.exists());
        new.remove().unwrap();
        living.remove().unwrap();
        assert!(!kept.exists());
    }
}
