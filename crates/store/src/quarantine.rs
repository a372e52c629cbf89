//! Damaged files, put aside so that they are never taken for what their names say.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use homeport_content::Digest;

use crate::clock::nanos;
use crate::error::io_error;
use crate::hold::Root;
use crate::protocol::{Access, Ground};
use crate::{Store, StoreError};

impl Store {
    /// Moves the file under a name aside; `inode` is that of the file whose bytes were found to be
    /// others. Returns where it is now, or `None` if another file took its place meanwhile.
    pub(crate) fn quarantine(&self, root: &Root, inode: u64) -> Result<Option<PathBuf>, StoreError> {
        use std::os::unix::fs::MetadataExt;
        let place = self.place_of(root);
        let dir = self.quarantine_dir();
        fs::create_dir_all(&dir).map_err(io_error("make the directory", &dir))?;
        let kind = match root {
            Root::Tree(_) => "tree",
            Root::Delta(_) => "delta",
            Root::Object(_) => "object",
        };
        let aside = dir.join(format!("{}-{kind}-{}", self.protocol.ground.now(), root.digest()));
        let _guard = self.protocol.ground.lock(&place, Access::Alone)?;
        match place.symlink_metadata() {
            Ok(found) if found.ino() == inode => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("look at", &place)(error)),
        }
        fs::rename(&place, &aside).map_err(io_error("put aside", &place))?;
        if let Root::Tree(_) | Root::Delta(_) = root {
            let is_it = |id: &Digest| id == root.digest();
            self.forget_cached(&is_it);
        }
        Ok(Some(aside))
    }

    /// What was put aside longer ago than `age`.
    pub(crate) fn quarantined_before(&self, age: Duration) -> Result<Vec<PathBuf>, StoreError> {
        let latest = self.protocol.ground.now().saturating_sub(nanos(age));
        let mut found = self.quarantined()?;
        found.retain(|path| since(path).is_some_and(|since| since < latest));
        Ok(found)
    }

    /// What was put aside.
    pub(crate) fn quarantined(&self) -> Result<Vec<PathBuf>, StoreError> {
        let dir = self.quarantine_dir();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error("list", &dir)(error)),
        };
        entries.map(|entry| Ok(entry.map_err(io_error("list", &dir))?.path())).collect()
    }

    /// Where damaged files are.
    pub fn quarantine_dir(&self) -> PathBuf {
        self.dir.join("quarantine")
    }
}

fn since(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.split_once('-')?.0.parse().ok()
}
