//! What the scheduler counts, for those who watch the server. `docs/metrics.md` explains it.
//!
//! Counters in memory only: they are read when somebody asks for the metrics. Labels have few values,
//! none of which users choose.

use homeport_proto::client as pb;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::starts::{StartRecord, StartStage};
use super::{Ending, Outcome, Scheduler, TaskPhase};
use crate::clock::Seconds;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Finished {
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stage {
    stage: &'static str,
}

/// Counts since the start of the server.
#[derive(Debug)]
pub(super) struct Tally {
    started: Counter,
    ended: Family<Ended, Counter>,
    containers: Family<State, Gauge>,
    inputs: Family<State, Gauge>,
    finished: Family<Finished, Counter>,
    queue: Histogram,
    duration: Histogram,
    start: Histogram,
    stages: Family<Stage, Histogram, fn() -> Histogram>,
}

/// 1 ms to some 500 s.
fn latencies() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 20))
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            started: Counter::default(),
            ended: Family::default(),
            containers: Family::default(),
            inputs: Family::default(),
            finished: Family::default(),
            queue: latencies(),
            duration: latencies(),
            // 50 ms to some 100 s.
            start: Histogram::new(exponential_buckets(0.05, 2.0, 12)),
            stages: Family::new_with_constructor(latencies),
        }
    }
}

/// The outcomes of containers.
const OUTCOMES: [&str; 6] = ["success", "exit_code", "signal", "out_of_memory", "not_started", "lost"];
/// The statuses of outputs.
const STATUSES: [&str; 4] = ["success", "failure", "timeout", "terminated"];

impl Tally {
    /// What was not counted yet is shown as zero.
    fn show_all(&self) {
        for outcome in OUTCOMES {
            drop(self.ended.get_or_create(&Ended { outcome }));
        }
        for status in STATUSES {
            drop(self.finished.get_or_create(&Finished { status }));
        }
        for stage in StartStage::NAMES {
            drop(self.stages.get_or_create(&Stage { stage }));
        }
    }

    pub(super) fn started(&self) {
        self.started.inc();
    }

    /// A container asked for its first input, so long after the first stage of its start began.
    pub(super) fn serves(&self, after: Seconds) {
        self.start.observe(after);
    }

    /// A container gave its first output: its start is over.
    pub(super) fn started_up(&self, start: &StartRecord) {
        for stage in start.stages() {
            self.stages.get_or_create(&Stage { stage: stage.name }).observe(stage.seconds);
        }
    }

    /// A container took an input that had waited so long.
    pub(super) fn taken(&self, after: Seconds) {
        self.queue.observe(after);
    }

    /// The outcome in a word or two.
    pub(super) fn ended(&self, ending: &Ending) -> &'static str {
        let outcome = match (&ending.outcome, ending.out_of_memory) {
            (_, true) => "out_of_memory",
            (Outcome::Exit(0), _) => "success",
            (Outcome::Exit(_), _) => "exit_code",
            (Outcome::Signal(_), _) => "signal",
            (Outcome::NotStarted(_), _) => "not_started",
            (Outcome::Lost(_), _) => "lost",
        };
        self.ended.get_or_create(&Ended { outcome }).inc();
        outcome
    }

    /// An input has its output, so long after it was queued for the last time.
    pub(super) fn finished(&self, result: Option<&pb::GenericResult>, after: Seconds) {
        use pb::generic_result::GenericStatus as Status;
        let status = match result.map(pb::GenericResult::status) {
            Some(Status::Success) => "success",
            Some(Status::Timeout) => "timeout",
            Some(Status::Terminated) => "terminated",
            _ => "failure",
        };
        self.finished.get_or_create(&Finished { status }).inc();
        self.duration.observe(after);
    }
}

impl Scheduler {
    /// Adds what the scheduler counts to the metrics of the server.
    pub fn register_metrics(&self, registry: &mut Registry) {
        let tally = &self.tally;
        tally.show_all();
        self.measure();
        let help = "Containers whose start was decided";
        registry.register("containers_started", help, tally.started.clone());
        let help = "Containers that have gone, by how they ended";
        registry.register("containers_ended", help, tally.ended.clone());
        registry.register("containers", "Containers that there are, by state", tally.containers.clone());
        registry.register("inputs", "Inputs without output, by state", tally.inputs.clone());
        let help = "Inputs that have their output, by its status";
        registry.register("inputs_finished", help, tally.finished.clone());
        let mut seconds = |name: &str, help: &str, histogram: &Histogram| {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        };
        let help = "Time from the queue to a container, for each input that one took";
        seconds("input_queue_duration", help, &tally.queue);
        let help = "Time from the queue to the output, for each input that has one";
        seconds("input_duration", help, &tally.duration);
        let help =
            "Time until a container asks for inputs, from the input that waits for it or from the decision";
        seconds("container_start_duration", help, &tally.start);
        let help = "Time of each stage of a container's start, up to its first output";
        registry.register_with_unit(
            "container_start_stage_duration",
            help,
            Unit::Seconds,
            tally.stages.clone(),
        );
    }

    /// Brings the gauges up to date.
    pub(super) fn measure(&self) {
        let (mut starting, mut serving, mut draining, mut running) = (0, 0, 0, 0);
        for task in self.live_tasks() {
            running += task.running();
            match task.phase {
                _ if task.draining => draining += 1,
                TaskPhase::Starting => starting += 1,
                _ => serving += 1,
            }
        }
        let queued: usize = self.pools.values().map(super::Pool::queued).sum();
        let delayed: usize = self.pools.values().map(|pool| pool.delayed.len()).sum();
        let set = |family: &Family<State, Gauge>, state, number: usize| {
            family.get_or_create(&State { state }).set(i64::try_from(number).unwrap_or(i64::MAX));
        };
        for (state, number) in [("starting", starting), ("serving", serving), ("draining", draining)] {
            set(&self.tally.containers, state, number);
        }
        for (state, number) in [("queued", queued), ("running", running), ("delayed", delayed)] {
            set(&self.tally.inputs, state, number);
        }
    }
}
