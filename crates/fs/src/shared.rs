//! Plain directories that several containers write to at once.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::error::FsError;
use crate::{IdMap, kernel};

/// A directory mounted with a container's ids. Dropping it unmounts; whoever uses it keeps it.
#[derive(Debug)]
pub struct SharedDirectory {
    target: PathBuf,
}

impl SharedDirectory {
    /// Mounts `directory` at `target`, an existing directory. Files that the container's root writes belong
    /// to root on disk, so that the same file has one owner in every container.
    pub fn mount(
        directory: &Path,
        target: &Path,
        id_map: Option<&IdMap>,
    ) -> Result<SharedDirectory, FsError> {
        let mut mount = kernel::bind(directory)?;
        if let Some(map) = id_map {
            mount = kernel::id_mapped(mount.as_fd(), map.userns.as_fd(), &target.display().to_string())?;
        }
        kernel::attach(mount.as_fd(), target)?;
        Ok(SharedDirectory { target: target.to_owned() })
    }

    /// Where it is mounted.
    pub fn target(&self) -> &Path {
        &self.target
    }
}

impl Drop for SharedDirectory {
    fn drop(&mut self) {
        if let Err(error) = kernel::detach_lazily(&self.target) {
            tracing::error!(%error, target = %self.target.display(), "a shared directory stays mounted");
        }
    }
}
