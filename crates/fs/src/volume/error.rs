//! What can go wrong with a Volume in a container.

use std::io;
use std::path::{Path, PathBuf};

use homeport_store::StoreError;

use crate::FsError;

/// A Volume could not be opened, taken or given up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// A mount or a file failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The store could not give or take content.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key has unusual characters, or is in use.
    #[error("`{0}` cannot name a Volume's layer: it is in use or has unusual characters")]
    Key(String),
    /// The Volume is to be seen nowhere.
    #[error("the Volume `{0}` is to be mounted at no place")]
    NoPlaces(String),
    /// The directory that is to be seen cannot be.
    #[error("the directory `{path}` of the Volume cannot be mounted: {reason}")]
    SubPath {
        /// From the root of the Volume.
        path: PathBuf,
        /// What stands against it.
        reason: String,
    },
    /// The container could not be stopped for a moment, or not be let go.
    #[error("the container could not be stopped while its Volume is looked at: {0}")]
    Freeze(io::Error),
    /// Something inside the container's mount namespace failed.
    #[error("cannot {action} `{place}` inside the container: {source}")]
    Inside {
        /// What was tried.
        action: &'static str,
        /// The path in the container.
        place: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The files of the Volume are more than it may have.
    #[error(
        "the Volume would have {bytes} bytes and may have {quota}: remove files and commit again, or raise its limit"
    )]
    Quota {
        /// What its files have together, with the changes.
        bytes: u64,
        /// The limit.
        quota: u64,
    },
    /// A pattern of files cannot be read.
    #[error("`{pattern}` is no pattern of file names: {reason}")]
    Pattern {
        /// As it was given.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What is on disk about a layer cannot be read.
    #[error("the record `{path}` of a Volume's layer cannot be used: {reason}")]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Another version could not be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShowError {
    /// There are changes that were not taken.
    #[error("there are changes that are not committed")]
    Changed,
    /// A file stands against it.
    #[error("`{}` is open in process {pid} ({process}): close it first", path.display())]
    Busy {
        /// The file, as the container sees it.
        path: PathBuf,
        /// The process, as the container numbers it.
        pid: u32,
        /// The name of the process.
        process: String,
    },
    /// Anything else.
    #[error(transparent)]
    Other(#[from] VolumeError),
}

impl VolumeError {
    /// Whether space was lacking.
    pub(super) fn is_for_lack_of_space(&self) -> bool {
        let number = self.io().and_then(io::Error::raw_os_error);
        matches!(number, Some(libc::ENOSPC | libc::EDQUOT))
    }

    /// The error of the operating system behind this one, if there is one.
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            VolumeError::Fs(error) => error.io(),
            VolumeError::Store(error) => error.io(),
            VolumeError::Freeze(source) | VolumeError::Inside { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// For `map_err`: what was tried, and at which place of the container.
pub(super) fn inside<E: Into<io::Error>>(
    action: &'static str,
    place: &Path,
) -> impl FnOnce(E) -> VolumeError {
    let place = place.to_owned();
    move |source| VolumeError::Inside { action, place, source: source.into() }
}
