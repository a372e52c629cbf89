//! What can go wrong in a store.

use std::io;
use std::path::{Path, PathBuf};

use homeport_content::{DecodeError, DeltaId, Digest, InvalidTree, SnapshotId};

/// An operation of the store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system refused something.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The disk is full, or what may be used of it.
    #[error(
        "cannot {action} `{path}`: no space is left on the disk, and what was to be stored is not; \
         free some (`homeport du` says where it goes, `homeport gc` removes what nothing refers to) and try again"
    )]
    NoSpace {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The content that was to be stored could not be read.
    #[error("cannot read the content that is to be stored")]
    Source(#[source] io::Error),
    /// There is no such object.
    #[error("object {0} is not in the store")]
    MissingObject(Digest),
    /// There is no such tree.
    #[error("snapshot {0} is not in the store")]
    MissingTree(SnapshotId),
    /// There is no such delta.
    #[error("delta {0} is not in the store")]
    MissingDelta(DeltaId),
    /// The file under a digest has other bytes.
    #[error("`{path}` is damaged: its content has the digest {found}; restore or remove the file")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The digest of the bytes that are there.
        found: Digest,
    },
    /// The size of an object is not what a tree says.
    #[error("object {digest} has {found} bytes where snapshots say {expected}")]
    WrongSize {
        /// The object.
        digest: Digest,
        /// Bytes that it should have.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// The bytes of the tree have the right digest, but are no tree that this version can read.
    #[error("snapshot {id} cannot be read")]
    Undecodable {
        /// The tree.
        id: SnapshotId,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The bytes of the delta have the right digest, but are no delta that this version can read.
    #[error("delta {id} cannot be read")]
    UndecodableDelta {
        /// The delta.
        id: DeltaId,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The tree or delta that was to be stored is not a valid one.
    #[error("the tree cannot be stored")]
    InvalidTree(#[from] InvalidTree),
    /// The file that was to be adopted is not a regular file.
    #[error("`{0}` is not a regular file and cannot become an object")]
    NotAFile(PathBuf),
}

impl StoreError {
    /// The error of the operating system behind this one, if there is one.
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            StoreError::Io { source, .. }
            | StoreError::NoSpace { source, .. }
            | StoreError::Source(source) => Some(source),
            _ => None,
        }
    }
}

/// For `map_err`: what was tried, and on which file.
pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::NoSpace { action, path, source }
        }
        _ => StoreError::Io { action, path, source },
    }
}
