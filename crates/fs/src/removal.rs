//! Removing what earlier processes left, without anybody waiting for it: a busy disk takes minutes for a hundred thousand
//! files, and the server is to be there at once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{FsError, io_error};
use crate::{Removal, drop_aside};

/// Where it waits for its removal.
pub(crate) const DIRECTORY: &str = "removed";

/// Removes everything in some directories, and what earlier processes set aside. On return the directories are empty.
pub(crate) fn remove_leftovers(removed: &Path, directories: &[PathBuf]) -> Result<(), FsError> {
    let mut aside = entries(removed)?;
    for directory in directories {
        for entry in entries(directory)? {
            aside.push(set_aside(removed, &entry).map_err(io_error("remove what was left of", &entry))?);
        }
    }
    drop_aside(aside.into_iter().map(Removal).collect::<Vec<_>>());
    Ok(())
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, FsError> {
    let failed = || io_error("list", directory);
    fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(failed())
}

fn set_aside(removed: &Path, path: &Path) -> io::Result<PathBuf> {
    let aside = tempfile::Builder::new().prefix("").tempdir_in(removed)?.keep();
    fs::rename(path, aside.join("it"))?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_was_left_is_out_of_the_way_at_once_and_gone_soon() {
        let place = tempfile::tempdir().unwrap();
        let [removed, left] = ["removed", "left"].map(|name| place.path().join(name));
        fs::create_dir_all(removed.join("of an earlier process/it/deep")).unwrap();
        fs::create_dir_all(left.join("directory/deep")).unwrap();
        fs::write(left.join("file"), "x").unwrap();
        remove_leftovers(&removed, std::slice::from_ref(&left)).unwrap();
        assert_eq!(entries(&left).unwrap(), Vec::<PathBuf>::new());
        let patience = Instant::now() + Duration::from_secs(10);
        while !entries(&removed).unwrap().is_empty() {
            assert!(Instant::now() < patience, "{:?}", entries(&removed));
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
