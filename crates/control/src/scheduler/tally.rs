//! What the scheduler counts, for those who watch the server.
//!
//! Counters in memory only: they are read when somebody asks for the metrics.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::{Ending, Outcome, Scheduler};
use crate::clock::Seconds;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Finished {
    status: &'static str,
}

/// Counts since the start of the server.
#[derive(Debug)]
pub(super) struct Tally {
    started: Counter,
    ended: Family<Ended, Counter>,
    live: Gauge,
    queued: Gauge,
    running: Gauge,
    finished: Family<Finished, Counter>,
    start: Histogram,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            started: Counter::default(),
            ended: Family::default(),
            live: Gauge::default(),
            queued: Gauge::default(),
            running: Gauge::default(),
            finished: Family::default(),
            // 50 ms to some 100 s.
            start: Histogram::new(exponential_buckets(0.05, 2.0, 12)),
        }
    }
}

impl Tally {
    pub(super) fn started(&self) {
        self.started.inc();
    }

    /// A container asked for its first input, so long after it was decided.
    pub(super) fn serves(&self, after: Seconds) {
        self.start.observe(after);
    }

    pub(super) fn ended(&self, ending: &Ending) {
        let outcome = match (&ending.outcome, ending.out_of_memory) {
            (_, true) => "out_of_memory",
            (Outcome::Exit(0), _) => "success",
            (Outcome::Exit(_), _) => "exit_code",
            (Outcome::Signal(_), _) => "signal",
            (Outcome::NotStarted(_), _) => "not_started",
            (Outcome::Lost(_), _) => "lost",
        };
        self.ended.get_or_create(&Ended { outcome }).inc();
    }

    pub(super) fn finished(&self, result: Option<&homeport_proto::client::GenericResult>) {
        use homeport_proto::client::generic_result::GenericStatus as Status;
        let status = match result.map(homeport_proto::client::GenericResult::status) {
            Some(Status::Success) => "success",
            Some(Status::Timeout) => "timeout",
            Some(Status::Terminated) => "terminated",
            _ => "failure",
        };
        self.finished.get_or_create(&Finished { status }).inc();
    }
}

impl Scheduler {
    /// Adds what the scheduler counts to the metrics of the server.
    pub fn register_metrics(&self, registry: &mut Registry) {
        let tally = &self.tally;
        registry.register("containers_started", "Containers whose start was decided", tally.started.clone());
        registry.register(
            "containers_ended",
            "Containers that have gone, by how they ended",
            tally.ended.clone(),
        );
        registry.register("containers_live", "Containers that start or serve", tally.live.clone());
        registry.register("inputs_queued", "Inputs that wait for a container", tally.queued.clone());
        registry.register("inputs_running", "Inputs that a container holds", tally.running.clone());
        registry.register(
            "inputs_finished",
            "Inputs that have their output, by its status",
            tally.finished.clone(),
        );
        let help = "Time from the decision to start a container to its first question for inputs";
        registry.register_with_unit("container_start", help, Unit::Seconds, tally.start.clone());
    }

    /// Brings the gauges up to date.
    pub(super) fn measure(&self) {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.tally.live.set(count(self.live_tasks().count()));
        self.tally.queued.set(count(self.pools.values().map(super::Pool::queued).sum()));
        self.tally.running.set(count(self.live_tasks().map(super::Task::running).sum()));
    }
}
