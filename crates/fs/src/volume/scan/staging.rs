//! Bringing files into the batch: as links, or as copies.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use homeport_content::Digest;
use rustix::fs::{AtFlags, CWD, linkat};
use rustix::io::Errno;

use super::contents::{Contents, Manner, NewFile};
use super::extents::{clone_into, copy_into};
use crate::error::{FsError, io_error};

impl Contents<'_> {
    pub(super) fn take_small(&self, new: &NewFile, size: u64) -> Result<Digest, FsError> {
        let mut bytes = vec![0; size as usize];
        new.file.read_exact_at(&mut bytes, 0).map_err(io_error("read", &new.shown))?;
        let digest = Digest::of(&bytes);
        if self.batch.contains(&digest)? {
            return Ok(digest);
        }
        if self.manner == Manner::Adopt {
            self.stage(new, digest)?;
            return Ok(digest);
        }
        let (file, path) = self.fresh_file().map_err(io_error("create", self.store.dir()))?;
        file.write_all_at(&bytes, 0).map_err(io_error("write", &path))?;
        self.batch.stage_file(digest, path)?;
        Ok(digest)
    }

    /// Stages a file whose digest is known, if the store does not have it.
    pub(super) fn stage(&self, new: &NewFile, digest: Digest) -> Result<(), FsError> {
        if self.batch.contains(&digest)? {
            return Ok(());
        }
        let path = match self.manner {
            Manner::Adopt => self.link(new)?,
            Manner::Copy => None,
        };
        let path = match path {
            Some(path) => path,
            None => self.copy(&new.file, new.stat.st_size as u64, &new.shown)?,
        };
        Ok(self.batch.stage_file(digest, path)?)
    }

    /// Links a file into scratch; `None` if it is on another file system.
    fn link(&self, new: &NewFile) -> Result<Option<PathBuf>, FsError> {
        let path = self.batch.scratch_path();
        let open = format!("/proc/self/fd/{}", new.file.as_raw_fd());
        match linkat(CWD, &open, CWD, &path, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => Ok(Some(path)),
            Err(Errno::XDEV | Errno::MLINK) => Ok(None),
            Err(errno) => Err(io_error("link", &new.shown)(errno)),
        }
    }

    /// A copy of a file in scratch that shares its blocks if that can be.
    pub(super) fn copy(&self, file: &File, size: u64, shown: &Path) -> Result<PathBuf, FsError> {
        let (copy, path) = self.fresh_file().map_err(io_error("create", self.store.dir()))?;
        let copied = match clone_into(file, &copy) {
            Ok(false) => copy_into(file, &copy, size, &|| Ok(())),
            other => other.map(drop),
        };
        match copied {
            Ok(()) => Ok(path),
            Err(error) => {
                // Space may be short: give it back at once.
                let _ = std::fs::remove_file(&path);
                Err(io_error("copy", shown)(error))
            }
        }
    }

    pub(super) fn fresh_file(&self) -> io::Result<(File, PathBuf)> {
        let path = self.batch.scratch_path();
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true).mode(0o444).open(&path)?;
        // The mask of the process may have taken bits away.
        file.set_permissions(Permissions::from_mode(0o444))?;
        Ok((file, path))
    }
}
