//! What can go wrong, in sentences for the user.

use std::io;
use std::path::PathBuf;

use homeport_runtime::{SandboxError, StartError};

/// Control wants no result any more.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("it was cancelled")]
pub(crate) struct Cancelled;

/// The worker could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The address of control isn't one.
    #[error("`{0}` is not an address of a control plane: write it as `http://host:port`")]
    Control(String),
    /// The credential can't be sent.
    #[error("the worker's credential has characters that can't be sent: use letters, digits and `-`")]
    Credential,
    /// What earlier containers changed in Volumes can't be read.
    #[error("what an earlier run left of Volumes can't be read: {0}")]
    Volumes(#[from] homeport_fs::VolumeError),
    /// The state directory can't be used.
    #[error("the worker's state directory `{path}`: {source}")]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

/// A container's surroundings could not be made, or its process not started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SiteError {
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error("`{0}` is no id: it may have 1 to 64 letters, digits, `_` and `-`")]
    Id(String),
    #[error("the order names no layers, so there is nothing to run in")]
    NoLayers,
    #[error("`{0}` is not a snapshot id")]
    Layer(String),
    #[error("`{0}` is not an address to listen on")]
    Listen(String),
    #[error("`{0}` can't be provided: files must have distinct plain paths below /__modal")]
    FilePath(String),
    #[error("`{0}` can't be the target of a mount: it must be a plain absolute path")]
    ScratchPath(String),
    #[error("`{path}` could not be written on the worker: {source}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("the control plane can't be served inside the container: {0}")]
    Listener(io::Error),
    #[error("the container's user namespace can't be kept open: {0}")]
    UserNamespace(io::Error),
    #[error("pipes for the container's output: {0}")]
    Pipes(io::Error),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Fs(#[from] homeport_fs::FsError),
    #[error(transparent)]
    Volumes(#[from] crate::volumes::OpenError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Wait(homeport_runtime::ContainerError),
    #[error("control asks for a kind of step that this worker does not know; it may be older than control")]
    UnknownStep,
    #[error("the worker failed inside; its log says where")]
    Bug,
}

/// An error with its causes, outermost first. A cause that the text before it tells already isn't told again.
pub(crate) fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let told = inner.to_string();
        if !text.contains(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        cause = inner.source();
    }
    text
}

/// Runs `work` on a thread that may block.
///
/// # Errors
///
/// [`SiteError::Bug`] when it panicked.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SiteError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| SiteError::Bug)
}
