//! What can go wrong with snapshots, layers and mounts.

use std::io;
use std::path::{Path, PathBuf};

use homeport_content::{InvalidTree, SnapshotId};
use homeport_store::StoreError;

/// An operation on snapshots, layers or mounts failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FsError {
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
    /// The store could not give or take content.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// A step of making a mount failed.
    #[error("cannot mount `{target}`: {step} failed{}", shown(.messages))]
    Mount {
        /// Where, or which snapshot.
        target: String,
        /// The system call and its subject.
        step: String,
        /// What the kernel wrote about it; often empty.
        messages: String,
        /// The error of the system call.
        source: io::Error,
    },
    /// A mount is still used by some process.
    #[error("`{target}` is in use and cannot be unmounted; end the processes that use it")]
    Busy {
        /// The mount point.
        target: PathBuf,
    },
    /// A mount without any snapshot was asked for.
    #[error("a mount at `{0}` needs at least one snapshot")]
    NoSnapshots(PathBuf),
    /// A snapshot cannot be made into an EROFS image.
    #[error("snapshot {snapshot} cannot be made into an EROFS image: {reason}")]
    Image {
        /// The snapshot.
        snapshot: SnapshotId,
        /// What stands against it.
        reason: String,
    },
    /// The name of a layer has unusual characters.
    #[error("`{0}` cannot name a layer: letters, digits, `.`, `_` and `-` are expected")]
    LayerName(String),
    /// The layer is mounted, or was unmounted while in use.
    #[error("layer `{0}` is mounted: unmount it first")]
    LayerMounted(PathBuf),
    /// The layer has been committed.
    #[error("layer `{0}` has been committed, which takes its files: use a new layer")]
    LayerSpent(PathBuf),
    /// A layer belongs to the snapshots that it was first mounted over.
    #[error("layer `{0}` was written over other snapshots than those given")]
    LayerOfOthers(PathBuf),
    /// The layer holds something that a commit cannot understand.
    #[error("`{path}` in layer `{layer}` cannot be committed: {reason}")]
    LayerEntry {
        /// The layer.
        layer: PathBuf,
        /// The path from the root of the mount.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The outcome of a commit is no valid tree.
    #[error("layer `{layer}` cannot be committed")]
    InvalidResult {
        /// The layer.
        layer: PathBuf,
        /// What is wrong.
        source: InvalidTree,
    },
    /// The kernel has neither way of mounting snapshots.
    #[error("snapshots cannot be mounted here: {0}")]
    NoBackend(String),
}

fn shown(messages: &str) -> String {
    if messages.is_empty() { String::new() } else { format!(" ({messages})") }
}

impl FsError {
    /// The error of the operating system behind this one, if there is one.
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            FsError::Io { source, .. } | FsError::Mount { source, .. } => Some(source),
            FsError::Store(error) => error.io(),
            _ => None,
        }
    }
}

/// For `map_err`: what was tried, and on which file.
pub(crate) fn io_error<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> FsError {
    let path = path.to_owned();
    move |source| FsError::Io { action, path, source: source.into() }
}
