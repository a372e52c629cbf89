//! Tasks: containers from the decision to start them to their end.

use std::collections::{BTreeMap, HashSet};

use homeport_proto::client as pb;

use super::call::{failure, output};
use super::effect::{Effect, StopSignal};
use super::input::{Input, Progress};
use super::pool::PoolSpec;
use super::{Pulse, Scheduler};
use crate::clock::Seconds;

/// Seconds that an idle container has for its exit hooks. Nobody waits for it, so they are many.
pub(super) const EXIT_HOOKS: Seconds = 30.0;
/// The least time between two looks of a container that has nothing to do but may not leave.
const LEAST_WAIT: Seconds = 1.0;
/// The stage after which the process runs.
const LAST_WORKER_STAGE: &str = "runtime";

/// Where a task is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskPhase {
    /// Its container is on its way up.
    Starting,
    /// It asked for inputs.
    Serving,
    /// It has gone.
    Ended,
}

/// A container.
#[derive(Debug)]
pub struct Task {
    /// Its id.
    pub id: String,
    /// The pool that it serves.
    pub pool_id: String,
    /// The app.
    pub app_id: String,
    /// Where it runs.
    pub worker_id: String,
    /// CDI device names.
    pub devices: Vec<String>,
    /// Where it is in its life.
    pub phase: TaskPhase,
    /// When it was decided.
    pub created: Seconds,
    /// How its start went.
    pub start: StartRecord,
    pub(super) milli_cpu: u32,
    pub(super) memory_bytes: u64,
    /// Its order went to the worker, so that a signal finds it.
    pub(super) ordered: bool,
    pub(super) inputs: HashSet<String>,
    /// The key of the last request that got inputs, and what it got.
    pub(super) last_take: Option<(String, Vec<String>)>,
    pub(super) taken: u64,
    pub(super) idle_since: Seconds,
    pub(super) draining: bool,
    pub(super) kill_at: Option<Seconds>,
    pub(super) cancelled: Vec<String>,
    pub(super) result: Option<pb::GenericResult>,
    pub(super) pulse: Pulse,
}

/// When the milestones of a start were reached. What was not reached yet is none.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct StartRecord {
    /// Seconds since the epoch at which the start was decided.
    pub decided: Seconds,
    /// Microseconds of the stages that the worker measured: `mount`, `network`, `runtime`.
    pub worker_micros: BTreeMap<String, u64>,
    /// When the worker had started the process.
    pub process: Option<Seconds>,
    /// When the client inside said its hello: the interpreter is up and the client imported.
    pub hello: Option<Seconds>,
    /// When it asked for its first input: the user's code is imported and has entered.
    pub ready: Option<Seconds>,
    /// When the first output came.
    pub output: Option<Seconds>,
}

/// How a container ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ending {
    /// What happened to the process.
    pub outcome: Outcome,
    /// The kernel killed something in it for want of memory.
    pub out_of_memory: bool,
    /// The committed root of a build.
    pub snapshot: Option<String>,
    /// Why there is no committed root.
    pub commit_error: Option<String>,
}

/// What happened to the process of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It exited.
    Exit(i32),
    /// A signal ended it.
    Signal(i32),
    /// It never ran; why.
    NotStarted(String),
    /// Nobody knows; why.
    Lost(String),
}

impl Default for Outcome {
    fn default() -> Self {
        Self::Exit(0)
    }
}

/// The answer to a container that asks for inputs.
#[derive(Debug)]
pub enum Take {
    /// Work.
    Inputs(Vec<pb::FunctionGetInputsItem>),
    /// Nothing now; wait for a change, at most until the time given.
    Wait {
        /// Moves when there may be work.
        change: tokio::sync::watch::Receiver<u64>,
        /// When the container has been idle for too long.
        until: Seconds,
    },
    /// End gracefully.
    Stop,
}

impl Task {
    pub(super) fn new(
        id: &str,
        spec: &PoolSpec,
        worker_id: &str,
        devices: Vec<String>,
        now: Seconds,
    ) -> Self {
        Self {
            id: id.to_owned(),
            pool_id: spec.function_id.clone(),
            app_id: spec.app_id.clone(),
            worker_id: worker_id.to_owned(),
            devices,
            phase: TaskPhase::Starting,
            created: now,
            start: StartRecord { decided: now, ..Default::default() },
            milli_cpu: spec.milli_cpu,
            memory_bytes: spec.memory_bytes,
            ordered: false,
            inputs: HashSet::new(),
            last_take: None,
            taken: 0,
            idle_since: now,
            draining: false,
            kill_at: None,
            cancelled: Vec::new(),
            result: None,
            pulse: Pulse::default(),
        }
    }

    /// Inputs that it holds.
    pub fn running(&self) -> usize {
        self.inputs.len()
    }

    /// Subscribes to cancellations.
    pub fn watch(&self) -> tokio::sync::watch::Receiver<u64> {
        self.pulse.subscribe()
    }
}

impl Scheduler {
    /// The container asks for up to `most` inputs. A request that is repeated under its `key`, because
    /// the answer did not arrive, gets the same inputs again.
    pub fn take_inputs(&mut self, task_id: &str, most: usize, key: Option<&str>, now: Seconds) -> Take {
        let Some(task) = self.tasks.get_mut(task_id) else { return Take::Stop };
        let Some(pool) = self.pools.get_mut(&task.pool_id) else { return Take::Stop };
        if let (Some(key), Some((last, given))) = (key, &task.last_take)
            && key == last
        {
            let again: Vec<_> = given
                .iter()
                .filter(|id| task.inputs.contains(*id))
                .filter_map(|id| self.inputs.get(id).and_then(work))
                .collect();
            if !again.is_empty() {
                return Take::Inputs(again);
            }
        }
        if task.phase == TaskPhase::Starting {
            task.phase = TaskPhase::Serving;
            task.idle_since = now;
            task.start.ready = Some(now);
            pool.failed_starts = 0;
            self.tally.serves(now - task.created);
        }
        let used_up = pool.spec.is_build && task.taken > 0;
        if task.draining || pool.closed || task.phase == TaskPhase::Ended || used_up {
            if task.draining && task.inputs.is_empty() {
                task.kill_at.get_or_insert(now + EXIT_HOOKS);
            }
            return Take::Stop;
        }
        let mut items = Vec::new();
        while items.len() < most.max(1)
            && let Some(input_id) = pool.queue.pop_front()
        {
            let Some(input) = self.inputs.get_mut(&input_id) else { continue };
            let Some(item) = work(input) else { continue };
            input.progress = Progress::Running { task_id: task_id.to_owned(), since: now };
            task.inputs.insert(input_id);
            task.taken += 1;
            items.push(item);
        }
        if !items.is_empty() {
            let given = items.iter().map(|item| item.input_id.clone()).collect();
            task.last_take = key.map(|key| (key.to_owned(), given));
            self.scale(now);
            return Take::Inputs(items);
        }
        let until = task.idle_since + pool.spec.idle;
        let change = pool.pulse.subscribe();
        if now >= until && task.inputs.is_empty() && self.may_leave(task_id) {
            self.mark_draining(task_id, now + EXIT_HOOKS);
            return Take::Stop;
        }
        Take::Wait { change, until: until.max(now + LEAST_WAIT) }
    }

    /// The order of a task is about to go to its worker. False when the task was ended meanwhile.
    pub fn begin_order(&mut self, task_id: &str) -> bool {
        let Some(task) = self.tasks.get_mut(task_id) else { return false };
        task.ordered = task.phase != TaskPhase::Ended;
        task.ordered
    }

    /// Whether the container holds this input.
    pub fn holds(&self, task_id: &str, input_id: &str) -> bool {
        self.tasks.get(task_id).is_some_and(|task| task.inputs.contains(input_id))
    }

    /// Whether the pool keeps enough containers without this one.
    pub(super) fn may_leave(&self, task_id: &str) -> bool {
        let Some(task) = self.tasks.get(task_id) else { return true };
        let Some(pool) = self.pools.get(&task.pool_id) else { return true };
        let others = self
            .live_tasks()
            .filter(|other| other.pool_id == task.pool_id && other.id != task.id && !other.draining)
            .count();
        others >= pool.spec.min_containers as usize
    }

    /// The container brings outputs. Those of inputs that it doesn't hold are ignored.
    pub fn put_outputs(&mut self, task_id: &str, outputs: Vec<pb::FunctionPutOutputsItem>, now: Seconds) {
        for item in outputs {
            if !self.holds(task_id, &item.input_id) {
                continue;
            }
            if let Some(task) = self.tasks.get_mut(task_id) {
                task.start.output.get_or_insert(now);
            }
            let output = pb::FunctionGetOutputsItem {
                result: item.result,
                gen_index: item.gen_index,
                data_format: item.data_format,
                task_id: task_id.to_owned(),
                input_started_at: item.input_started_at,
                output_created_at: item.output_created_at,
                ..Default::default()
            };
            self.conclude(&item.input_id, output, now);
        }
        self.scale(now);
    }

    /// The container reports how it itself fared: a failure of its import or its `enter` hooks.
    pub fn report_result(&mut self, task_id: &str, result: pb::GenericResult) {
        if let Some(task) = self.tasks.get_mut(task_id) {
            task.result = Some(result);
            task.draining = true;
        }
    }

    /// A stage of the start is done.
    pub fn record_stage(&mut self, task_id: &str, stage: &str, micros: u64, now: Seconds) {
        if let Some(task) = self.tasks.get_mut(task_id) {
            task.start.worker_micros.insert(stage.to_owned(), micros);
            if stage == LAST_WORKER_STAGE {
                task.start.process = Some(now);
            }
        }
    }

    /// The client inside the container is up.
    pub fn record_hello(&mut self, task_id: &str, now: Seconds) {
        if let Some(task) = self.tasks.get_mut(task_id) {
            task.start.hello.get_or_insert(now);
        }
    }

    /// Inputs that were cancelled since the last question.
    pub fn take_cancelled(&mut self, task_id: &str) -> Vec<String> {
        self.tasks.get_mut(task_id).map(|task| std::mem::take(&mut task.cancelled)).unwrap_or_default()
    }

    /// Ends a container gracefully, by force after the grace time.
    pub fn drain(&mut self, task_id: &str, now: Seconds) {
        let Some(task) = self.tasks.get(task_id) else { return };
        if task.phase == TaskPhase::Ended {
            return;
        }
        if !task.ordered {
            // No worker knows it yet: there is nobody to tell and nothing to wait for.
            self.mark_draining(task_id, now);
            let outcome = Outcome::NotStarted("it was stopped before it started".into());
            self.task_ended(task_id, Ending { outcome, ..Default::default() }, now);
            return;
        }
        // An idle container stops by the answer to its long poll, a busy one by a signal. One
        // that is still starting has no hooks to run.
        let signal = match task.phase {
            TaskPhase::Starting => Some(StopSignal::Kill),
            _ if task.inputs.is_empty() => None,
            _ => Some(StopSignal::Interrupt),
        };
        let worker_id = task.worker_id.clone();
        self.mark_draining(task_id, now + self.policy.grace);
        if let Some(signal) = signal {
            self.effects.push(Effect::Signal { worker_id, task_id: task_id.to_owned(), signal });
        }
    }

    /// The task shall go, and is killed at `deadline` if it didn't. An earlier deadline stays.
    pub(super) fn mark_draining(&mut self, task_id: &str, deadline: Seconds) {
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        task.draining = true;
        task.kill_at = Some(task.kill_at.map_or(deadline, |earlier| earlier.min(deadline)));
        if let Some(pool) = self.pools.get(&task.pool_id) {
            pool.pulse.beat();
        }
    }

    pub(super) fn kill(&mut self, task_id: &str) {
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        task.draining = true;
        self.effects.push(Effect::Signal {
            worker_id: task.worker_id.clone(),
            task_id: task_id.to_owned(),
            signal: StopSignal::Kill,
        });
    }

    /// The container has gone. What it held fails, and what waits for it alone, too.
    pub fn task_ended(&mut self, task_id: &str, ending: Ending, now: Seconds) {
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        if task.phase == TaskPhase::Ended {
            return;
        }
        let never_served = task.phase == TaskPhase::Starting || task.result.is_some();
        task.phase = TaskPhase::Ended;
        task.idle_since = now;
        self.tally.ended(&ending);
        let (pool_id, app_id) = (task.pool_id.clone(), task.app_id.clone());
        let held: Vec<String> = task.inputs.drain().collect();
        let reported = task.result.clone();
        // Someone else wanted it to go: it was stopped, or its definition was replaced.
        let stopped = task.kill_at.is_some() || (task.draining && reported.is_none());
        let Some(pool) = self.pools.get_mut(&pool_id) else { return };
        pool.last_ending = Some(ending.clone());
        if never_served && !stopped {
            pool.start_failed(now);
        }
        let text = describe(&pool.spec, &ending);
        let others_serve =
            self.tasks.values().any(|other| other.pool_id == pool_id && other.phase == TaskPhase::Serving);
        for input_id in held {
            if self.closing && self.is_durable(&input_id) {
                continue;
            }
            self.conclude(&input_id, output(failure(text.clone()), now), now);
        }
        if never_served && !others_serve && !stopped && !self.closing {
            // Its successor would fail in the same way: the waiting callers get the reason now.
            self.fail_queue(&pool_id, &reported.unwrap_or_else(|| failure(text)), now);
        }
        if let Some(pool) = self.pools.get(&pool_id) {
            pool.pulse.beat();
        }
        for call in self.calls.values().filter(|call| call.function_id == pool_id) {
            call.pulse.beat();
        }
        if !self.app_has_tasks(&app_id)
            && self.pools.values().any(|pool| pool.spec.app_id == app_id && pool.closed)
        {
            self.effects.push(Effect::AppQuiet { app_id });
        }
        self.scale(now);
    }

    fn is_durable(&self, input_id: &str) -> bool {
        let input = self.inputs.get(input_id);
        input.and_then(|input| self.calls.get(&input.call_id)).is_some_and(|call| call.durable)
    }

    pub(super) fn expire_inputs(&mut self, now: Seconds) {
        let mut late: Vec<(String, String, String)> = Vec::new();
        for task in self.tasks.values().filter(|task| task.phase == TaskPhase::Serving) {
            let Some(pool) = self.pools.get(&task.pool_id) else { continue };
            for input_id in &task.inputs {
                let since = match self.inputs.get(input_id).map(|input| &input.progress) {
                    Some(Progress::Running { since, .. }) => *since,
                    _ => continue,
                };
                if now - since > pool.spec.timeout {
                    let text = format!(
                        "{} did not return within its timeout of {} s.",
                        pool.spec.name, pool.spec.timeout
                    );
                    late.push((task.id.clone(), input_id.clone(), text));
                }
            }
        }
        for (task_id, input_id, exception) in late {
            let result = pb::GenericResult {
                status: pb::generic_result::GenericStatus::Timeout.into(),
                exception,
                ..Default::default()
            };
            self.conclude(&input_id, output(result, now), now);
            self.kill(&task_id);
        }
    }

    pub(super) fn expire_tasks(&mut self, now: Seconds) {
        let mut overdue = Vec::new();
        for task in self.live_tasks() {
            let startup = self.pools.get(&task.pool_id).map_or(0.0, |pool| pool.spec.startup_timeout);
            let too_late = task.phase == TaskPhase::Starting && now - task.created > startup;
            if too_late || task.kill_at.is_some_and(|at| now > at) {
                overdue.push((task.id.clone(), too_late));
            }
        }
        for (task_id, too_late) in overdue {
            if let Some(task) = self.tasks.get_mut(&task_id) {
                // Repeated until the worker reports the end.
                if task.kill_at.is_some() {
                    task.kill_at = Some(now + 1.0);
                }
                if too_late && task.result.is_none() {
                    task.result = Some(failure(format!(
                        "The container did not start within its startup timeout of {:.0} s.",
                        now - task.created
                    )));
                }
            }
            if self.tasks.get(&task_id).is_some_and(|task| task.ordered) {
                self.kill(&task_id);
            } else {
                let outcome = Outcome::NotStarted("its start could not be prepared in time".into());
                self.task_ended(&task_id, Ending { outcome, ..Default::default() }, now);
            }
        }
    }
}

/// An input as the container gets it; none when it is done.
fn work(input: &Input) -> Option<pb::FunctionGetInputsItem> {
    Some(pb::FunctionGetInputsItem {
        input_id: input.id.clone(),
        input: Some(input.payload.clone()?),
        function_call_id: input.call_id.clone(),
        function_map_idx: Some(input.idx),
        ..Default::default()
    })
}

/// The end of a container in words for a caller.
fn describe(spec: &PoolSpec, ending: &Ending) -> String {
    let name = &spec.name;
    if ending.out_of_memory {
        let limit = match spec.memory_limit {
            0 => "the machine's".to_owned(),
            bytes => format!("{} MiB", bytes >> 20),
        };
        return format!(
            "The container of {name} ran out of memory (limit: {limit}). Give the function more with memory=…."
        );
    }
    match &ending.outcome {
        Outcome::Exit(0) => format!("The container of {name} exited before it returned a result."),
        Outcome::Exit(code) => {
            format!("The container of {name} exited with code {code} before it returned a result.")
        }
        Outcome::Signal(signal) => {
            let signal = signal_name(*signal);
            format!("The container of {name} was killed by {signal} before it returned a result.")
        }
        Outcome::NotStarted(reason) => format!("The container of {name} could not be started: {reason}"),
        Outcome::Lost(reason) => format!("The container of {name} was lost: {reason}"),
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        31 => "SIGSYS",
        _ => return format!("signal {signal}"),
    };
    format!("signal {signal} ({name})")
}
