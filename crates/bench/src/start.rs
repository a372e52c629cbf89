//! Cold starts of containers, stage by stage, by a real program through the real client.
//!
//! The program has a function for each start; each is called for the first time after the one
//! before has answered, so that every call waits for a container of its own and for no other.
//! The server's records say when each milestone was reached, the program says when its first
//! line ran. A first start, which builds the image and brings the client there, is not counted.

mod plain_runc;
mod program;
mod records;
pub(crate) mod report;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::BenchError;
use crate::client::ClientOptions;
use crate::error::io_error;
use crate::interruption::Interruption;
use crate::machine::Machine;
use crate::program::Program;

use plain_runc::PlainRunc;
use program::Visit;
use records::StartRecord;
use report::StartReport;

/// The server keeps records only for as long as it remembers their tasks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// What to measure, and on which server.
#[derive(Debug, Clone)]
pub struct StartOptions {
    /// The client and its server.
    pub client: ClientOptions,
    /// Number of cold starts. Each leaves an idle container until the end.
    pub runs: usize,
    /// Data directory of the server.
    pub data_dir: PathBuf,
    /// Process of the server.
    pub server_pid: u32,
}

/// Runs the benchmark on a running server. Needs root for its comparison with plain `runc`. Says
/// what it is doing through `progress`.
///
/// SIGINT, SIGTERM and SIGHUP end it with [`BenchError::Interrupted`], after the app has stopped.
pub fn run_start(options: &StartOptions, progress: &dyn Fn(&str)) -> Result<StartReport, BenchError> {
    let interruption = Interruption::catch()?;
    let dir = tempfile::tempdir().map_err(io_error("make a directory in", &std::env::temp_dir()))?;
    let machine = Machine::of(&options.data_dir)?;
    let version = options.client.version()?;
    // Says early if the server cannot be asked.
    records::fetch(options)?;

    progress("building the image and starting containers");
    let mut known: BTreeMap<String, StartRecord> = BTreeMap::new();
    let source = program::source(options.runs + 1);
    let mut client = Program::start(&options.client, dir.path(), "cold_starts", &source, &[])?;
    let visits: Vec<Visit> = loop {
        interruption.check()?;
        std::thread::sleep(BETWEEN_LOOKS);
        let visits = client.result()?;
        let records = records::fetch(options)?;
        known.extend(records.into_iter().map(|record| (record.task_id.clone(), record)));
        if let Some(visits) = visits {
            break visits;
        }
    };
    let records: Vec<StartRecord> = known.into_values().collect();

    progress("the same interpreter with plain runc");
    let plain = match visits.last() {
        Some(last) => {
            let task = records.iter().find(|record| record.function_id == last.function_id);
            let task = task.map_or("", |record| record.task_id.as_str());
            plain_runc::measure(options, task, &last.executable, dir.path(), &interruption)?
        }
        None => PlainRunc::default(),
    };
    progress("ending the containers");
    client.finish()?;
    StartReport::new(machine, version, visits.get(1..).unwrap_or_default(), &records, &plain)
}
