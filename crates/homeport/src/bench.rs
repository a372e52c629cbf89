//! `homeport bench`.

use std::io::Write;
use std::path::{Path, PathBuf};

use homeport_bench::{
    BenchError, CallsOptions, ClientOptions, CommitOptions, ImageOptions, StartOptions, VolumeOptions,
    run_calls, run_commit, run_image, run_start, run_volume,
};
use serde::Serialize;

use crate::cli::{BenchCallsFlags, BenchCommitFlags, BenchImageFlags, BenchStartFlags, BenchVolumeFlags};
use crate::data_dir::{DataDir, DataDirError};
use crate::environment;
use crate::failure::Hint;
use crate::tokens::{TokenError, block_on};

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchCommandError {
    #[error(transparent)]
    Bench(#[from] BenchError),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("cannot write the report")]
    Write(#[from] std::io::Error),
    #[error("cannot write the report as JSON")]
    Json(#[from] serde_json::Error),
}

impl Hint for BenchCommandError {
    fn hint(&self) -> Option<String> {
        match self {
            BenchCommandError::DataDir(error) => error.hint(),
            BenchCommandError::Token(error) => error.hint(),
            _ => None,
        }
    }
}

/// Measures a mounted image. Without a directory of its own it works where images of the server would be.
pub(crate) fn image(data_dir: &Path, flags: BenchImageFlags) -> Result<(), BenchCommandError> {
    let options = ImageOptions {
        files: flags.files,
        bytes: flags.bytes,
        dir: flags.dir.unwrap_or_else(|| nearest_directory(data_dir)),
        rounds: flags.rounds as usize,
    };
    print(&run_image(&options, &progress)?, flags.json)
}

/// Measures a Volume. Without a directory of its own it works where Volumes of the server would be.
pub(crate) fn volume(data_dir: &Path, flags: BenchVolumeFlags) -> Result<(), BenchCommandError> {
    let options = VolumeOptions {
        files: flags.files,
        bytes: flags.bytes,
        written: flags.written,
        dir: flags.dir.unwrap_or_else(|| nearest_directory(data_dir)),
        rounds: flags.rounds as usize,
    };
    print(&run_volume(&options, &progress)?, flags.json)
}

/// Measures cold starts on the server that runs on the data directory.
pub(crate) fn start(data_dir: &Path, flags: BenchStartFlags) -> Result<(), BenchCommandError> {
    let data_dir = DataDir::existing(data_dir)?;
    let options = StartOptions {
        client: client(&data_dir, &flags.python)?,
        runs: flags.runs as usize,
        data_dir: data_dir.root().to_path_buf(),
        server_pid: data_dir.running_server()?.pid,
    };
    print(&run_start(&options, &progress)?, flags.json)
}

/// Measures commits and reloads on the server that runs on the data directory.
pub(crate) fn commit(data_dir: &Path, flags: BenchCommitFlags) -> Result<(), BenchCommandError> {
    let data_dir = DataDir::existing(data_dir)?;
    let options = CommitOptions {
        client: client(&data_dir, &flags.python)?,
        data_dir: data_dir.root().to_path_buf(),
        files: flags.files,
        rounds: flags.rounds as usize,
        reloads: flags.reloads as usize,
        large: flags.large,
        payload: flags.payload,
    };
    print(&run_commit(&options, &progress)?, flags.json)
}

/// Measures calls on the server that runs on the data directory.
pub(crate) fn calls(data_dir: &Path, flags: BenchCallsFlags) -> Result<(), BenchCommandError> {
    let data_dir = DataDir::existing(data_dir)?;
    let options = CallsOptions {
        client: client(&data_dir, &flags.python)?,
        server_pid: data_dir.running_server()?.pid,
        data_dir: data_dir.root().to_path_buf(),
        rounds: flags.rounds as usize,
        calls: flags.calls as usize,
        inputs: flags.inputs as usize,
        queued: flags.queued as usize,
        payload: flags.payload.0,
    };
    print(&run_calls(&options, &progress)?, flags.json)
}

/// A client of the server that runs on the data directory.
fn client(data_dir: &DataDir, python: &Path) -> Result<ClientOptions, BenchCommandError> {
    let server = data_dir.running_server()?;
    let token = block_on(environment::token(data_dir))?;
    Ok(ClientOptions {
        // Not with its links resolved: a virtual environment is known by the link.
        python: std::path::absolute(python)?,
        server_url: server.url(),
        token_id: token.id,
        token_secret: token.secret,
    })
}

/// The data directory, or where it would be made.
fn nearest_directory(data_dir: &Path) -> PathBuf {
    let existing = data_dir.ancestors().find(|path| path.is_dir());
    existing.unwrap_or(data_dir).to_path_buf()
}

fn progress(step: &str) {
    // Who closed stderr doesn't want to know.
    let _ = writeln!(std::io::stderr(), "bench: {step}");
}

fn print<R: Serialize + std::fmt::Display>(report: &R, json: bool) -> Result<(), BenchCommandError> {
    let mut stdout = std::io::stdout().lock();
    if json {
        writeln!(stdout, "{}", serde_json::to_string_pretty(report)?)?;
    } else {
        write!(stdout, "{report}")?;
    }
    Ok(())
}
