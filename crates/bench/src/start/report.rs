//! Where the time of a container's start goes.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::plain_runc::PlainRunc;
use super::program::Visit;
use super::records::StartRecord;
use crate::machine::Machine;
use crate::statistics::Summary;
use crate::{BenchError, table};

/// Everything that was measured. All times are in seconds.
#[derive(Debug, Clone, Serialize)]
pub struct StartReport {
    /// Where.
    pub machine: Machine,
    /// Version of the client.
    pub client: String,
    /// Number of cold starts.
    pub runs: usize,
    /// The stages, in the order in which they happen. Their medians add up to about the total.
    pub stages: Vec<Stage>,
    /// Spans over several stages.
    pub totals: Vec<Stage>,
    /// `runc run` on the same root file system.
    pub peers: Vec<Stage>,
    /// The time until the interpreter is up, over that of `runc run` with the same interpreter,
    /// by medians. `None` without a peer.
    pub interpreter_up_over_plain: Option<f64>,
}

/// One span of time.
#[derive(Debug, Clone, Serialize)]
pub struct Stage {
    /// Its name.
    pub name: &'static str,
    /// What it covers.
    pub covers: &'static str,
    /// Seconds.
    pub seconds: Summary,
}

/// One start, complete.
#[derive(Debug)]
struct Start<'a> {
    visit: &'a Visit,
    record: &'a StartRecord,
    process: f64,
    hello: f64,
    ready: f64,
    output: f64,
}

type Span = fn(&Start<'_>) -> f64;
type Row = (&'static str, &'static str, Span);

const STAGES: [Row; 9] = [
    ("network", "namespace, address and links, made ready by the worker", |start| start.worker("network")),
    ("mount", "layers, overlay and files of the container", |start| start.worker("mount")),
    ("runtime", "runc create and start", |start| start.worker("runtime")),
    ("dispatch", "decision to process, less the three above", |start| {
        let known = ["network", "mount", "runtime"].map(|stage| start.worker(stage));
        start.process - start.record.decided - known.iter().sum::<f64>()
    }),
    ("interpreter", "`python -I -c pass` inside the container", |start| start.visit.interpreter),
    ("client import", "process to the client's hello, less the interpreter", |start| {
        start.hello - start.process - start.visit.interpreter
    }),
    ("to user code", "hello to the first line of the program", |start| start.visit.first_line - start.hello),
    ("user import", "first line to asking for the first input", |start| start.ready - start.visit.first_line),
    ("first input", "asking for the first input to its output", |start| start.output - start.ready),
];

const TOTALS: [Row; 5] = [
    (
        "to decision",
        "the call to the decision: the way to the server, and a wait where it is full",
        |start| start.record.decided - start.visit.asked,
    ),
    ("to process", "decision to process", |start| start.process - start.record.decided),
    ("to user code", "decision to the first line of the program", |start| {
        start.visit.first_line - start.record.decided
    }),
    ("to output", "decision to the first output", |start| start.output - start.record.decided),
    ("remote()", "what the caller waits for", |start| start.visit.answered - start.visit.asked),
];

impl Start<'_> {
    fn worker(&self, stage: &str) -> f64 {
        let micros = self.record.worker_micros.get(stage).copied().unwrap_or_default();
        micros as f64 / 1e6
    }
}

impl StartReport {
    /// Brings together what the program, the server and plain `runc` say. Of several starts of one
    /// function the first counts.
    pub(super) fn new(
        machine: Machine,
        client: String,
        visits: &[Visit],
        records: &[StartRecord],
        plain: &PlainRunc,
    ) -> Result<StartReport, BenchError> {
        let starts: Vec<Start<'_>> =
            visits.iter().map(|visit| start(visit, records)).collect::<Result<_, _>>()?;
        let stages = rows(&STAGES, &starts);
        let totals = rows(&TOTALS, &starts);
        let peer = |name, covers, seconds: &[f64]| {
            Summary::of(seconds).map(|seconds| Stage { name, covers, seconds })
        };
        let nothing = peer("runc run true", "from exec to exit, container removed", &plain.nothing);
        let interpreter = peer("runc run python", "the same with `python -I -c pass`", &plain.interpreter);
        let ours: Vec<f64> = starts
            .iter()
            .map(|start| start.process - start.record.decided + start.visit.interpreter)
            .collect();
        let interpreter_up_over_plain = Summary::of(&ours)
            .zip(interpreter.as_ref())
            .map(|(ours, peer)| ours.median / peer.seconds.median);
        Ok(StartReport {
            machine,
            client,
            runs: starts.len(),
            stages,
            totals,
            peers: nothing.into_iter().chain(interpreter).collect(),
            interpreter_up_over_plain,
        })
    }
}

fn rows(rows: &[Row], starts: &[Start<'_>]) -> Vec<Stage> {
    rows.iter()
        .filter_map(|(name, covers, span)| {
            let values: Vec<f64> = starts.iter().map(span).collect();
            Some(Stage { name, covers, seconds: Summary::of(&values)? })
        })
        .collect()
}

fn start<'a>(visit: &'a Visit, records: &'a [StartRecord]) -> Result<Start<'a>, BenchError> {
    let record = records
        .iter()
        .filter(|record| record.function_id == visit.function_id)
        .min_by(|a, b| a.decided.total_cmp(&b.decided))
        .ok_or_else(|| BenchError::NoRecord { function: visit.function_id.clone(), milestone: "decision" })?;
    let reached = |milestone: &'static str, time: Option<f64>| {
        time.ok_or_else(|| BenchError::NoRecord { function: visit.function_id.clone(), milestone })
    };
    Ok(Start {
        visit,
        record,
        process: reached("process", record.process)?,
        hello: reached("hello", record.hello)?,
        ready: reached("first question for inputs", record.ready)?,
        output: reached("first output", record.output)?,
    })
}

impl Display for StartReport {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "machine  {}", self.machine)?;
        writeln!(
            formatter,
            "starts   {} cold starts one after the other, client {}\n",
            self.runs, self.client
        )?;
        for (heading, stages) in
            [("stage", &self.stages), ("total", &self.totals), ("plain runc", &self.peers)]
        {
            if stages.is_empty() {
                continue;
            }
            let mut rows = vec![[heading, "p50 ms", "p99 ms", "covers"].map(str::to_owned).to_vec()];
            rows.extend(stages.iter().map(|stage| {
                vec![
                    stage.name.to_owned(),
                    format!("{:.1}", stage.seconds.median * 1e3),
                    format!("{:.1}", stage.seconds.p99 * 1e3),
                    stage.covers.to_owned(),
                ]
            }));
            writeln!(formatter, "{}", table::render(&rows, &[0, 3]))?;
        }
        if let Some(ratio) = self.interpreter_up_over_plain {
            writeln!(
                formatter,
                "decision to interpreter up: {ratio:.2} times `runc run` of the same interpreter"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(function: &str) -> Visit {
        Visit {
            function_id: function.to_owned(),
            asked: 99.9,
            answered: 101.1,
            first_line: 100.7,
            interpreter: 0.02,
            executable: "/usr/bin/python3".to_owned(),
        }
    }

    fn record(task: &str, function: &str, decided: f64) -> StartRecord {
        let micros = [("mount", 3000), ("network", 2000), ("runtime", 45_000)];
        StartRecord {
            task_id: task.to_owned(),
            function_id: function.to_owned(),
            decided,
            worker_micros: micros.map(|(stage, micros)| (stage.to_owned(), micros)).into(),
            process: Some(100.1),
            hello: Some(100.5),
            ready: Some(100.8),
            output: Some(101.0),
        }
    }

    fn machine() -> Machine {
        Machine::of(std::path::Path::new("/proc")).unwrap()
    }

    #[test]
    fn the_stages_of_a_start_add_up_to_its_total() {
        let plain = PlainRunc { nothing: vec![0.03], interpreter: vec![0.06] };
        let report = StartReport::new(
            machine(),
            "1.0".into(),
            &[visit("fu-1")],
            &[record("ta-2", "fu-1", 100.5), record("ta-1", "fu-1", 100.0)],
            &plain,
        )
        .unwrap();
        let sum: f64 = report.stages.iter().map(|stage| stage.seconds.median).sum();
        let total = report.totals.iter().find(|stage| stage.name == "to output").unwrap();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        assert!((total.seconds.median - 1.0).abs() < 1e-6, "the first start counts: {total:?}");
        let ratio = report.interpreter_up_over_plain.unwrap();
        assert!((ratio - 2.0).abs() < 1e-6, "{ratio}");
    }

    #[test]
    fn a_start_without_all_milestones_is_an_error_that_names_the_first_missing_one() {
        let incomplete = StartRecord { hello: None, ..record("ta-1", "fu-1", 100.0) };
        let error =
            StartReport::new(machine(), "1.0".into(), &[visit("fu-1")], &[incomplete], &PlainRunc::default())
                .unwrap_err();
        assert!(error.to_string().contains("hello"), "{error}");
    }
}
