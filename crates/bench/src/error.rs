use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use homeport_content::PathError;
use homeport_fs::FsError;
use homeport_store::StoreError;

use crate::machine::ByteCount;

/// A benchmark could not be carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The operating system refused something.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The files do not fit on the disk.
    #[error(
        "the benchmark writes about {needed} below `{dir}`, where {free} are free: \
         give a smaller --bytes, or another --dir"
    )]
    NotEnoughDisk {
        /// What would be written.
        needed: ByteCount,
        /// Where.
        dir: PathBuf,
        /// What the file system has left.
        free: ByteCount,
    },
    /// The files do not fit into the page cache, so warm reads cannot be measured.
    #[error(
        "warm reads need about {needed} of memory for the page cache, and {available} are \
         available: give a smaller --bytes"
    )]
    NotEnoughMemory {
        /// What both copies take.
        needed: ByteCount,
        /// What the kernel says is available.
        available: ByteCount,
    },
    /// The options make no image.
    #[error("cannot make an image of {files} files and {bytes}: {reason}")]
    Corpus {
        /// Files asked for.
        files: u64,
        /// Bytes asked for.
        bytes: ByteCount,
        /// What is wrong with them.
        reason: &'static str,
    },
    /// There is no mount namespace of its own to be had.
    #[error("cannot enter a private mount namespace; the benchmark needs root")]
    Namespace(#[source] io::Error),
    /// A signal asked for the end.
    #[error("interrupted; everything that was made has been removed")]
    Interrupted,
    /// The store refused the image.
    #[error("the scratch store failed")]
    Store(#[from] StoreError),
    /// The image could not be mounted.
    #[error("the image cannot be mounted")]
    Fs(#[from] FsError),
    /// A Volume could not be mounted or committed.
    #[error("the Volume failed")]
    Volume(#[from] homeport_fs::VolumeError),
    /// Another version of a Volume could not be shown.
    #[error("the other version of the Volume cannot be shown")]
    Show(#[source] homeport_fs::ShowError),
    /// The tree of the image is wrong.
    #[error("the tree of the image cannot be built")]
    Tree(#[from] PathError),
    /// What was read is not what was written.
    #[error("`{path}` gave {found} bytes where {expected} were written")]
    ShortRead {
        /// The file.
        path: PathBuf,
        /// What it gave.
        found: u64,
        /// What it has.
        expected: u64,
    },
    /// A walk of the tree met another number of entries than there are.
    #[error("a walk of `{path}` met {found} entries where {expected} are")]
    ShortWalk {
        /// The root of the walk.
        path: PathBuf,
        /// What it met.
        found: u64,
        /// What there is.
        expected: u64,
    },
    /// The interpreter given has no client.
    #[error("`{python}` cannot import the client package `modal`: {output}")]
    NoClient {
        /// The interpreter.
        python: PathBuf,
        /// What it wrote.
        output: String,
    },
    /// The client failed to run the program.
    #[error("the client ended with {status}; the end of its output:\n{output}")]
    Client {
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote.
        output: String,
    },
    /// The client's process cannot be waited for.
    #[error("the client's process is lost")]
    ClientLost(#[source] io::Error),
    /// The client did not end.
    #[error("the client did not end within {0} s and was killed")]
    ClientStuck(u64),
    /// The bare server did not start.
    #[error("the bare server of the floor did not start: {0}")]
    NoEcho(String),
    /// The options leave nothing to measure.
    #[error("nothing was measured: give at least one round, one call and one input")]
    NothingMeasured,
    /// The server's records cannot be had.
    #[error("cannot get `{url}`: {reason}")]
    Server {
        /// The address.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The server does not know something about a start.
    #[error("the server has no record of the {milestone} of the container of function {function}")]
    NoRecord {
        /// The function.
        function: String,
        /// What it should have recorded.
        milestone: &'static str,
    },
    /// The container whose root was to be used has gone.
    #[error("there is no container of task `{task}` in `{dir}`")]
    NoBundle {
        /// The task.
        task: String,
        /// Where containers are described.
        dir: PathBuf,
    },
    /// `runc` could not run a container.
    #[error("`runc run` of `{command}` failed: {output}")]
    Runc {
        /// What was to run inside.
        command: String,
        /// What it wrote.
        output: String,
    },
    /// A thread of the benchmark could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// Signals cannot be caught.
    #[error("cannot catch signals")]
    Signals(#[source] io::Error),
}

/// For `map_err`: what was tried, and on which file.
pub(crate) fn io_error<E: Into<io::Error>>(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> BenchError {
    let path = path.to_owned();
    move |source| BenchError::Io { action, path, source: source.into() }
}
