//! How containers start, stage by stage, also of those that have gone.

use std::collections::{BTreeMap, VecDeque};

use super::{Pool, Scheduler, Task, TaskPhase};
use crate::clock::Seconds;

/// The stage that the worker reports when the container's files are there.
const MOUNTED: &str = "mount";
/// The stage after which the process runs.
const RUNS: &str = "runtime";
/// Starts of containers that have gone, which are remembered.
const KEPT: usize = 1000;

/// When the milestones of a start were reached. What was not reached yet is none.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct StartRecord {
    /// When the input that waited longest was put; none if no input waited.
    pub queued: Option<Seconds>,
    /// Seconds since the epoch at which the start was decided.
    pub decided: Seconds,
    /// When the order for the worker was complete.
    pub ordered: Option<Seconds>,
    /// Microseconds of the stages that the worker measured: `mount`, `network`, `runtime`.
    pub worker_micros: BTreeMap<String, u64>,
    /// When the worker had the container's network and files.
    pub mounted: Option<Seconds>,
    /// When the worker had started the process.
    pub process: Option<Seconds>,
    /// When the client inside said its hello: the interpreter is up and the client imported.
    pub hello: Option<Seconds>,
    /// When it asked for its first input: the user's code is imported and has entered.
    pub ready: Option<Seconds>,
    /// When it got its first input.
    pub input: Option<Seconds>,
    /// When the first output came.
    pub output: Option<Seconds>,
}

/// A part of a start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StartStage {
    /// One of [`StartStage::NAMES`].
    pub name: &'static str,
    /// How long it took.
    pub seconds: Seconds,
}

impl StartStage {
    /// The names in the order in which stages happen. The client says nothing between the import of
    /// the user's code and the end of its `@enter` methods, so both are one stage.
    pub const NAMES: [&str; 8] =
        ["queued", "placed", "network", "mounted", "process", "client", "code", "first_input"];
}

impl StartRecord {
    pub(super) fn decided(queued: Option<Seconds>, now: Seconds) -> Self {
        Self { queued, decided: now, ..Self::default() }
    }

    /// The worker is done with a stage.
    pub(super) fn worker_stage(&mut self, stage: &str, micros: u64, now: Seconds) {
        match stage {
            MOUNTED => self.mounted = Some(now),
            RUNS => self.process = Some(now),
            _ => {}
        }
        self.worker_micros.insert(stage.to_owned(), micros);
    }

    /// When the first stage began.
    pub fn began(&self) -> Seconds {
        self.queued.unwrap_or(self.decided).min(self.decided)
    }

    /// The stages that are over. They follow each other without gaps, but for an idle time before
    /// the first input, which is no part of a start.
    pub fn stages(&self) -> Vec<StartStage> {
        let network = self.worker_micros.get("network").copied().unwrap_or_default() as Seconds / 1e6;
        // The layers are made ready while the network is; what is left of the time is theirs.
        let connected =
            self.ordered.zip(self.mounted).map(|(from, to)| (from + network).clamp(from, to.max(from)));
        let spans = [
            (Some(self.began()), Some(self.decided)),
            (Some(self.decided), self.ordered),
            (self.ordered, connected),
            (connected, self.mounted),
            (self.mounted, self.process),
            (self.process, self.hello),
            (self.hello, self.ready),
            (self.input, self.output),
        ];
        let stage = |(name, (from, to)): (_, (Option<Seconds>, Option<Seconds>))| {
            Some(StartStage { name, seconds: (to? - from?).max(0.0) })
        };
        StartStage::NAMES.into_iter().zip(spans).filter_map(stage).collect()
    }
}

/// A start of a container.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ContainerStart {
    /// The task.
    pub task_id: String,
    /// The function that it serves.
    pub function_id: String,
    /// What users call that function.
    pub function: String,
    /// Its app.
    pub app_id: String,
    /// `starting`, `serving` or `ended`.
    pub state: &'static str,
    /// How the container ended; empty if it didn't.
    pub outcome: &'static str,
    /// What happened when.
    #[serde(flatten)]
    pub start: StartRecord,
}

impl ContainerStart {
    pub(super) fn of(task: &Task, pool: Option<&Pool>, state: &'static str, outcome: &'static str) -> Self {
        Self {
            task_id: task.id.clone(),
            function_id: task.pool_id.clone(),
            function: pool.map(|pool| pool.spec.name.clone()).unwrap_or_default(),
            app_id: task.app_id.clone(),
            state,
            outcome,
            start: task.start.clone(),
        }
    }
}

/// The starts of containers that have gone, oldest first.
#[derive(Debug, Default)]
pub(super) struct EndedStarts(VecDeque<ContainerStart>);

impl EndedStarts {
    pub(super) fn push(&mut self, start: ContainerStart) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(start);
    }
}

impl Scheduler {
    /// The starts that are remembered, oldest first: those of all containers that are there, and of
    /// the last thousand that were.
    pub fn starts(&self) -> Vec<ContainerStart> {
        let live = self.live_tasks().map(|task| {
            let state = if task.phase == TaskPhase::Starting { "starting" } else { "serving" };
            ContainerStart::of(task, self.pools.get(&task.pool_id), state, "")
        });
        let mut starts: Vec<_> = self.ended_starts.0.iter().cloned().chain(live).collect();
        starts.sort_by(|a, b| a.start.decided.total_cmp(&b.start.decided));
        starts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete() -> StartRecord {
        let mut start = StartRecord::decided(Some(10.0), 10.5);
        start.ordered = Some(10.6);
        start.worker_stage("network", 50_000, 10.7);
        start.worker_stage("mount", 150_000, 10.75);
        start.worker_stage("runtime", 40_000, 10.8);
        start.hello = Some(11.0);
        start.ready = Some(11.5);
        start.input = Some(21.5);
        start.output = Some(21.75);
        start
    }

    #[test]
    fn stages_add_up_to_the_whole_start_without_the_idle_time() {
        let stages = complete().stages();
        assert_eq!(stages.iter().map(|stage| stage.name).collect::<Vec<_>>(), StartStage::NAMES);
        let whole: f64 = stages.iter().map(|stage| stage.seconds).sum();
        assert!((whole - 1.75).abs() < 1e-9, "{stages:?}");
        let seconds = |name| stages.iter().find(|stage| stage.name == name).unwrap().seconds;
        assert!((seconds("network") - 0.05).abs() < 1e-9, "{stages:?}");
        assert!((seconds("mounted") - 0.1).abs() < 1e-9, "{stages:?}");
    }

    #[test]
    fn a_start_that_goes_on_has_the_stages_that_are_over() {
        let start = StartRecord { hello: None, ready: None, input: None, output: None, ..complete() };
        assert_eq!(start.stages().last().map(|stage| stage.name), Some("process"));
    }

    #[test]
    fn no_clock_makes_a_stage_negative() {
        let start = StartRecord { ordered: Some(9.0), mounted: Some(8.0), ..complete() };
        assert!(start.stages().iter().all(|stage| stage.seconds >= 0.0), "{:?}", start.stages());
    }

    #[test]
    fn only_the_last_starts_are_kept() {
        let mut ended = EndedStarts::default();
        for number in 0..KEPT + 3 {
            ended.push(ContainerStart {
                task_id: number.to_string(),
                function_id: String::new(),
                function: String::new(),
                app_id: String::new(),
                state: "ended",
                outcome: "success",
                start: complete(),
            });
        }
        assert_eq!(ended.0.len(), KEPT);
        assert_eq!(ended.0[0].task_id, "3");
    }
}
