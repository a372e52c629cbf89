//! Where a Volume's layer is on disk.
//!
//! ```text
//! volumes/<key>/record     what the rest is, see [`Record`](super::record::Record)
//! volumes/<key>/<n>/upper  changes made through the n-th mount
//! volumes/<key>/<n>/work   the kernel's
//! volumes/<key>/<n>/data   new contents of `upper` by digest, once nobody writes to it any more
//! volumes/<key>/<n>/delta  what `upper` holds, as a delta, likewise
//! volumes/<key>/<n>/change what of that was not taken before, where that is something else
//! ```

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use homeport_content::{Delta, Metadata};

use super::VolumeError;
use crate::IdMap;
use crate::error::io_error;
use crate::layer::{make_directories, prepare_root};

/// The directory of one Volume's layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LayerDirectory {
    path: PathBuf,
}

/// The directory of one upper directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GenerationDirectory {
    path: PathBuf,
}

impl LayerDirectory {
    /// Makes the directory; refuses a name that is taken.
    pub(super) fn create(volumes: &Path, key: &str) -> Result<LayerDirectory, VolumeError> {
        let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if key.is_empty() || key.len() > 200 || key.starts_with('.') || !key.bytes().all(usual) {
            return Err(VolumeError::Key(key.to_owned()));
        }
        let path = volumes.join(key);
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(VolumeError::Key(key.to_owned()));
            }
            result => result.map_err(io_error("make the directory", &path))?,
        }
        let made = LayerDirectory { path };
        // The container's root passes through here.
        crate::layer::set_mode(&made.path, 0o711)?;
        Ok(made)
    }

    /// A directory that is there.
    pub(super) fn existing(path: PathBuf) -> LayerDirectory {
        LayerDirectory { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn generation(&self, number: u64) -> GenerationDirectory {
        GenerationDirectory { path: self.path.join(number.to_string()) }
    }

    /// Makes an empty upper directory, which shows `root` as the root of the mount.
    pub(super) fn fresh(
        &self,
        number: u64,
        root: &Metadata,
        id_map: Option<&IdMap>,
    ) -> Result<GenerationDirectory, VolumeError> {
        let made = self.generation(number);
        // What an attempt left that failed.
        made.remove()?;
        fs::create_dir(&made.path).map_err(io_error("make the directory", &made.path))?;
        make_directories(&made.path)?;
        prepare_root(&made.upper(), &made.work(), root, id_map)?;
        Ok(made)
    }

    /// Numbers of the generations that have a directory.
    pub(super) fn generations(&self) -> Result<Vec<u64>, VolumeError> {
        let entries = fs::read_dir(&self.path).map_err(io_error("list", &self.path))?;
        let names = entries.map(|entry| Ok(entry.map_err(io_error("list", &self.path))?.file_name()));
        let names = names.collect::<Result<Vec<_>, VolumeError>>()?;
        Ok(names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
    }

    pub(super) fn remove(&self) -> Result<(), VolumeError> {
        remove(&self.path)
    }
}

impl GenerationDirectory {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn upper(&self) -> PathBuf {
        self.path.join("upper")
    }

    pub(super) fn work(&self) -> PathBuf {
        self.path.join("work")
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Changes with everything that is done to the root of the mount.
    pub(super) fn root_stamp(&self) -> Result<(i64, i64), VolumeError> {
        let upper = self.upper();
        let about = fs::metadata(&upper).map_err(io_error("look at", &upper))?;
        Ok((about.ctime(), about.ctime_nsec()))
    }

    /// Whether the upper directory holds any entry.
    pub(super) fn has_entries(&self) -> Result<bool, VolumeError> {
        let upper = self.upper();
        let mut entries = fs::read_dir(&upper).map_err(io_error("list", &upper))?;
        Ok(entries.next().is_some())
    }

    /// Makes the directory for contents by digest, empty.
    pub(super) fn make_data(&self) -> Result<PathBuf, VolumeError> {
        let data = self.data();
        remove(&data)?;
        fs::create_dir(&data).map_err(io_error("make the directory", &data))?;
        Ok(data)
    }

    /// Writes a delta. Durable after [`GenerationDirectory::sync_deltas`].
    pub(super) fn write_delta(&self, name: &str, delta: &Delta) -> Result<(), VolumeError> {
        let path = self.path.join(name);
        fs::write(&path, delta.encode()).map_err(io_error("write", &path))?;
        Ok(())
    }

    /// Waits until the deltas that were written here are on disk.
    pub(super) fn sync_deltas(&self) -> Result<(), VolumeError> {
        for path in ["delta", "change", ""].map(|name| self.path.join(name)) {
            match File::open(&path).and_then(|file| file.sync_all()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                synced => synced.map_err(io_error("sync", &path))?,
            }
        }
        Ok(())
    }

    /// A delta that was written here; `None` if there is none.
    pub(super) fn read_delta(&self, name: &str) -> Result<Option<Delta>, VolumeError> {
        let path = self.path.join(name);
        match fs::read(&path) {
            Ok(bytes) => Delta::decode(&bytes)
                .map(Some)
                .map_err(|error| VolumeError::Record { path, reason: error.to_string() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("read", &path)(error).into()),
        }
    }

    /// Removes all but `data`, which a mount may still read from. Nobody waits for the files to go: a disk that is busy
    /// takes minutes for a hundred thousand.
    pub(super) fn remove_upper(&self) -> Result<(), VolumeError> {
        for path in [self.work(), self.path.join("delta"), self.path.join("change")] {
            remove(&path)?;
        }
        let (upper, gone) = (self.upper(), self.path.join("gone"));
        match fs::rename(&upper, &gone) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.map_err(io_error("rename", &upper))?,
        }
        // What fails goes with the directory of the generation.
        let removal = move || drop(fs::remove_dir_all(&gone));
        let _ = std::thread::Builder::new().name("removal".into()).spawn(removal);
        Ok(())
    }

    pub(super) fn remove(&self) -> Result<(), VolumeError> {
        remove(&self.path)
    }
}

fn remove(path: &Path) -> Result<(), VolumeError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(about) if about.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error).into()),
        _ => Ok(()),
    }
}
