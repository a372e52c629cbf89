//! What calls cost, by a real program through the real client.
//!
//! The same program runs twice, against the server under test and against a bare server that
//! answers every input at once (`echo.py`). Both are asked for the same things in turns, so that
//! both see the same machine. What the bare server takes is the floor: the client's own cost.

mod driver;
mod echo;
mod process;
pub(crate) mod report;

use std::path::PathBuf;

use crate::BenchError;
use crate::client::ClientOptions;
use crate::error::io_error;
use crate::interruption::Interruption;
use crate::machine::Machine;
use crate::statistics::{Summary, ratios};

use driver::{Command, Driver};
use echo::Echo;
use process::{cpu_seconds, resident_bytes};
use report::{CallsReport, Latency, Payload, Queue, Rate};

/// Calls before those that count.
const WARM_CALLS: usize = 20;
/// Depths of the queue at which the cost of a call is looked at.
const DEPTHS: [usize; 4] = [100, 1_000, 10_000, 100_000];
const PAYLOADS: [u64; 3] = [1_000_000, 10_000_000, 100_000_000];

/// What to measure, and on which server.
#[derive(Debug, Clone)]
pub struct CallsOptions {
    /// The client and its server.
    pub client: ClientOptions,
    /// Process of the server.
    pub server_pid: u32,
    /// Data directory of the server, for what is said of the machine.
    pub data_dir: PathBuf,
    /// Turns.
    pub rounds: usize,
    /// Calls of `.remote()` in one turn.
    pub calls: usize,
    /// Inputs of `.map()` in one turn.
    pub inputs: usize,
    /// The deepest queue.
    pub queued: usize,
    /// The largest payload in bytes.
    pub payload: u64,
}

/// The two servers with their clients.
struct Pair {
    ours: Driver,
    ours_pid: u32,
    floor: Driver,
}

/// Runs the benchmark on a running server, which gets one app with six containers for it. Says
/// what it is doing through `progress`.
///
/// SIGINT, SIGTERM and SIGHUP end it with [`BenchError::Interrupted`], after the app has stopped.
pub fn run_calls(options: &CallsOptions, progress: &dyn Fn(&str)) -> Result<CallsReport, BenchError> {
    let interruption = Interruption::catch()?;
    let dir = tempfile::tempdir().map_err(io_error("make a directory in", &std::env::temp_dir()))?;
    let machine = Machine::of(&options.data_dir)?;
    let version = options.client.version()?;
    let echo = Echo::start(&options.client.python, dir.path())?;

    progress("starting both clients, and the containers");
    let floor_client = ClientOptions { server_url: echo.url(), ..options.client.clone() };
    let mut pair = Pair {
        ours: Driver::start(&options.client, dir.path(), "ours", &interruption)?,
        ours_pid: options.server_pid,
        floor: Driver::start(&floor_client, dir.path(), "floor", &interruption)?,
    };
    for (function, containers) in [("one", 1), ("four", 4)] {
        pair.ours.ask(&Command::Warm { function, containers }, &interruption)?;
    }
    pair.each(&Command::Remote { function: "one", count: WARM_CALLS }, &interruption)?;
    pair.each(&Command::Payload { bytes: 1 }, &interruption)?;

    progress("remote() of a function that does nothing");
    let (remote, remote_cpu) = pair.remote(options, &interruption)?;
    let mut rates = Vec::new();
    for (function, containers) in [("one", 1), ("four", 4)] {
        progress(&format!("map() with {containers} container(s)"));
        rates.push(pair.map(options, function, containers, &interruption)?);
    }
    let mut payloads = Vec::new();
    for bytes in PAYLOADS.into_iter().filter(|bytes| *bytes <= options.payload) {
        progress(&format!("payloads of {} MB", bytes / 1_000_000));
        payloads.push(pair.payload(options, bytes, &interruption)?);
    }
    progress("calls beside a queue that grows");
    let queues = pair.queues(options, &interruption)?;
    progress("ending the containers");
    pair.ours.finish()?;
    pair.floor.finish()?;
    Ok(CallsReport { machine, client: version, remote, remote_cpu, rates, payloads, queues })
}

impl Pair {
    /// Both do the same, one after the other.
    fn each(&mut self, command: &Command, interruption: &Interruption) -> Result<[Vec<f64>; 2], BenchError> {
        Ok([self.ours.ask(command, interruption)?, self.floor.ask(command, interruption)?])
    }

    fn remote(
        &mut self,
        options: &CallsOptions,
        interruption: &Interruption,
    ) -> Result<(Latency, Summary), BenchError> {
        let (mut ours, mut floor, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
        let command = Command::Remote { function: "one", count: options.calls };
        for _ in 0..options.rounds {
            let before = cpu_seconds(self.ours_pid)?;
            ours.push(self.ours.ask(&command, interruption)?);
            cpu.push((cpu_seconds(self.ours_pid)? - before) / options.calls as f64);
            floor.push(self.floor.ask(&command, interruption)?);
        }
        let cpu = Summary::of(&cpu).ok_or(BenchError::NothingMeasured)?;
        Ok((Latency::of(&ours, &floor).ok_or(BenchError::NothingMeasured)?, cpu))
    }

    fn map(
        &mut self,
        options: &CallsOptions,
        function: &'static str,
        containers: usize,
        interruption: &Interruption,
    ) -> Result<Rate, BenchError> {
        let command = Command::Map { function, inputs: options.inputs };
        let (mut ours, mut floor, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            let before = cpu_seconds(self.ours_pid)?;
            ours.extend(self.ours.ask(&command, interruption)?);
            cpu.push((cpu_seconds(self.ours_pid)? - before) / options.inputs as f64);
            floor.extend(self.floor.ask(&command, interruption)?);
        }
        let per_second = |seconds: &[f64]| {
            let rates: Vec<f64> = seconds.iter().map(|seconds| options.inputs as f64 / seconds).collect();
            Summary::of(&rates).ok_or(BenchError::NothingMeasured)
        };
        Ok(Rate {
            containers,
            inputs: options.inputs,
            per_second: per_second(&ours)?,
            floor_per_second: per_second(&floor)?,
            of_floor: ratios(&floor, &ours).ok_or(BenchError::NothingMeasured)?,
            server_cpu: Summary::of(&cpu).ok_or(BenchError::NothingMeasured)?,
        })
    }

    fn payload(
        &mut self,
        options: &CallsOptions,
        bytes: u64,
        interruption: &Interruption,
    ) -> Result<Payload, BenchError> {
        let (mut ours, mut floor, mut raw) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            let [by_us, by_floor] = self.each(&Command::Payload { bytes }, interruption)?;
            ours.extend(by_us);
            floor.extend(by_floor);
            raw.extend(self.ours.ask(&Command::Upload { bytes }, interruption)?);
        }
        Ok(Payload {
            bytes,
            seconds: Summary::of(&ours).ok_or(BenchError::NothingMeasured)?,
            floor: Summary::of(&floor).ok_or(BenchError::NothingMeasured)?,
            upload: Summary::of(&raw).ok_or(BenchError::NothingMeasured)?,
            of_upload: ratios(&raw, &ours).ok_or(BenchError::NothingMeasured)?,
            floor_of_upload: ratios(&raw, &floor).ok_or(BenchError::NothingMeasured)?,
        })
    }

    /// Fills the queue of a function that takes nothing, and looks at the calls of another one.
    fn queues(
        &mut self,
        options: &CallsOptions,
        interruption: &Interruption,
    ) -> Result<Vec<Queue>, BenchError> {
        // Its container is there, so that no start is in the figures.
        self.ours.ask(&Command::Remote { function: "held", count: 1 }, interruption)?;
        let empty = resident_bytes(self.ours_pid)?;
        let mut queues = Vec::new();
        let mut depth = 0;
        for next in DEPTHS.into_iter().filter(|depth| *depth <= options.queued) {
            let put = self.ours.ask(&Command::Queue { inputs: next - depth }, interruption)?;
            let per_input: Vec<f64> = put.iter().map(|seconds| seconds / (next - depth) as f64).collect();
            depth = next;
            let bytes = resident_bytes(self.ours_pid)?.saturating_sub(empty);
            let before = cpu_seconds(self.ours_pid)?;
            let remote =
                self.ours.ask(&Command::Remote { function: "one", count: options.calls }, interruption)?;
            let server_cpu = (cpu_seconds(self.ours_pid)? - before) / options.calls as f64;
            queues.push(Queue {
                depth,
                remote: Summary::of(&remote).ok_or(BenchError::NothingMeasured)?,
                put: Summary::of(&per_input).ok_or(BenchError::NothingMeasured)?,
                server_cpu,
                bytes,
            });
        }
        Ok(queues)
    }
}
