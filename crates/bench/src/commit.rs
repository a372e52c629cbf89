//! Commits, reloads, uploads and downloads of Volumes by a real program through the real client.
//!
//! The program times them where its user would wait. Beside them: the aims, the same bytes by plain
//! HTTP to the same server, and for a change within a large file the commit of the whole file.

pub(crate) mod report;

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::BenchError;
use crate::client::ClientOptions;
use crate::error::io_error;
use crate::interruption::Interruption;
use crate::machine::{ByteCount, Machine};
use crate::program::Program;

use report::CommitReport;

const SOURCE: &str = include_str!("commit/program.py");
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// What to measure, and on which server.
#[derive(Debug, Clone)]
pub struct CommitOptions {
    /// The client and its server.
    pub client: ClientOptions,
    /// Data directory of the server.
    pub data_dir: PathBuf,
    /// Small files of the Volume.
    pub files: u64,
    /// Commits of one changed file among them.
    pub rounds: usize,
    /// Reloads beside a reader.
    pub reloads: usize,
    /// Bytes of the large file, of which one per cent changes.
    pub large: ByteCount,
    /// Bytes that go up and come down.
    pub payload: ByteCount,
}

/// What the program found out. Times are in seconds.
#[derive(Debug, Deserialize)]
struct Found {
    small: Small,
    large: Large,
    payload: Payload,
}

#[derive(Debug, Deserialize)]
struct Small {
    #[serde(rename = "first commit")]
    first_commit: Vec<f64>,
    commit: Vec<f64>,
    reload: Vec<f64>,
    /// Tries to open a file meanwhile, and how many failed.
    opens: (u64, u64),
}

#[derive(Debug, Deserialize)]
struct Large {
    write: Vec<f64>,
    commit: Vec<f64>,
    change: Vec<f64>,
    #[serde(rename = "changed commit")]
    changed_commit: Vec<f64>,
}

#[derive(Debug, Deserialize)]
struct Payload {
    #[serde(rename = "plain upload")]
    plain_upload: Vec<f64>,
    upload: Vec<f64>,
    #[serde(rename = "plain download")]
    plain_download: Vec<f64>,
    download: Vec<f64>,
}

/// Runs the benchmark on a running server. Says what it is doing through `progress`.
///
/// SIGINT, SIGTERM and SIGHUP end it with [`BenchError::Interrupted`], after the app has stopped.
pub fn run_commit(options: &CommitOptions, progress: &dyn Fn(&str)) -> Result<CommitReport, BenchError> {
    let interruption = Interruption::catch()?;
    let dir = tempfile::tempdir().map_err(io_error("make a directory in", &std::env::temp_dir()))?;
    let machine = Machine::of(&options.data_dir)?;
    let version = options.client.version()?;
    progress("running the program");
    let flag = |name: &str, value: u64| [format!("--{name}"), value.to_string()];
    let flags = [
        flag("files", options.files),
        flag("rounds", options.rounds as u64),
        flag("reloads", options.reloads as u64),
        flag("large-bytes", options.large.0),
        flag("payload-bytes", options.payload.0),
    ];
    let mut program = Program::start(&options.client, dir.path(), "commits", SOURCE, &flags.concat())?;
    let found: Found = loop {
        interruption.check()?;
        if let Some(found) = program.result()? {
            break found;
        }
        std::thread::sleep(BETWEEN_LOOKS);
    };
    program.finish()?;
    Ok(CommitReport::new(machine, version, options, &found))
}
