//! Tasks: containers from the decision to start them to their end.

use std::collections::{HashMap, HashSet, VecDeque};

use homeport_proto::client as pb;

use super::call::{failure, output};
use super::effect::{Effect, StopSignal};
use super::input::{Input, Progress};
use super::pool::PoolSpec;
use super::starts::{ContainerStart, StartRecord};
use super::{Pulse, Scheduler};
use crate::clock::Seconds;

/// Seconds that an idle container has for its exit hooks. Nobody waits for it, so they are many.
pub(super) const EXIT_HOOKS: Seconds = 30.0;
/// The least time between two looks of a container that has nothing to do but may not leave.
const LEAST_WAIT: Seconds = 1.0;
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
    /// The keys of the latest requests that brought outputs.
    pub(super) brought: VecDeque<String>,
    pub(super) taken: u64,
    pub(super) idle_since: Seconds,
    /// It takes no further inputs.
    pub(super) draining: bool,
    /// It runs an older definition of its function.
    pub(super) outdated: bool,
    pub(super) is_build: bool,
    pub(super) kill_at: Option<Seconds>,
    pub(super) cancelled: Vec<String>,
    /// Inputs that were cancelled while it had them, and until when it may hold on to them.
    pub(super) cancelling: HashMap<String, Seconds>,
    /// It was signalled to end: what it holds then is not to blame for that.
    pub(super) signalled: bool,
    pub(super) result: Option<pb::GenericResult>,
    pub(super) pulse: Pulse,
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
            start: StartRecord::decided(None, now),
            milli_cpu: spec.milli_cpu,
            memory_bytes: spec.memory_bytes,
            ordered: false,
            inputs: HashSet::new(),
            last_take: None,
            brought: VecDeque::new(),
            taken: 0,
            idle_since: now,
            draining: false,
            outdated: false,
            is_build: spec.is_build,
            kill_at: None,
            cancelled: Vec::new(),
            cancelling: HashMap::new(),
            signalled: false,
            result: None,
            pulse: Pulse::default(),
        }
    }

    /// Inputs that it holds.
    pub fn running(&self) -> usize {
        self.inputs.len()
    }

    /// When it had gone.
    pub fn ended_at(&self) -> Option<Seconds> {
        (self.phase == TaskPhase::Ended).then_some(self.idle_since)
    }

    /// Subscribes to cancellations.
    pub fn watch(&self) -> tokio::sync::watch::Receiver<u64> {
        self.pulse.subscribe()
    }
}

impl Scheduler {
    /// The container asks for up to `most` inputs, and takes fewer. As [`Scheduler::take_batch`].
    pub fn take_inputs(&mut self, task_id: &str, most: usize, key: Option<&str>, now: Seconds) -> Take {
        self.take_batch(task_id, most, 0.0, key, now)
    }

    /// The container asks for up to `most` inputs of one method, and waits for `linger` seconds from
    /// the arrival of the first one until there are so many. A request that is repeated under its
    /// `key`, because the answer did not arrive, gets the same inputs again.
    pub fn take_batch(
        &mut self,
        task_id: &str,
        most: usize,
        linger: Seconds,
        key: Option<&str>,
        now: Seconds,
    ) -> Take {
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
            self.tally.serves(now - task.start.began());
            if let Some(machine) = self.machines.get_mut(&task.worker_id) {
                machine.started();
            }
        }
        if pool.spec.concurrency <= 1 {
            // It could not ask for work while it is busy with a cancelled input.
            task.cancelling.clear();
        }
        let used_up = (pool.spec.is_build || pool.spec.single_use) && task.taken > 0;
        if task.draining || pool.closed || task.phase == TaskPhase::Ended || used_up {
            if task.draining && task.inputs.is_empty() {
                task.kill_at.get_or_insert(now + EXIT_HOOKS);
            }
            return Take::Stop;
        }
        let (ready, full_at) = front_batch(&pool.queue, &self.inputs, most.max(1), linger);
        if now < full_at {
            return Take::Wait { change: pool.pulse.subscribe(), until: full_at };
        }
        let mut items = Vec::new();
        while items.len() < ready
            && let Some(input_id) = pool.queue.pop_front()
        {
            let Some(input) = self.inputs.get_mut(&input_id) else { continue };
            let Some(item) = work(input) else { continue };
            self.tally.taken(now - input.queued_at);
            task.start.input.get_or_insert(now);
            input.progress = Progress::Running { task_id: task_id.to_owned(), since: now };
            task.inputs.insert(input_id);
            task.taken += 1;
            items.push(item);
        }
        if !items.is_empty() {
            let given = items.iter().map(|item| item.input_id.clone()).collect();
            task.last_take = key.map(|key| (key.to_owned(), given));
            pool.touched = now;
            if pool.spec.single_use {
                task.draining = true;
                self.demanding.insert(task.pool_id.clone());
            }
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
        let demand = self.demand(pool);
        demand.serving.saturating_sub(usize::from(!task.draining)) >= demand.wanted
    }

    /// The container brings outputs. Those of inputs that it doesn't hold are ignored.
    pub fn put_outputs(&mut self, task_id: &str, outputs: Vec<pb::FunctionPutOutputsItem>, now: Seconds) {
        for item in outputs {
            if let Some(task) = self.tasks.get_mut(task_id) {
                task.cancelling.remove(&item.input_id);
            }
            if !self.holds(task_id, &item.input_id) {
                continue;
            }
            if let Some(task) = self.tasks.get_mut(task_id)
                && task.start.output.is_none()
            {
                task.start.output = Some(now);
                self.tally.started_up(&task.start);
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
        if self.tasks.get(task_id).is_some_and(|task| task.draining && task.inputs.is_empty()) {
            self.mark_draining(task_id, now + EXIT_HOOKS);
        }
        self.scale(now);
    }

    /// The container reports how it itself fared: a failure of its import or its `enter` hooks.
    pub fn report_result(&mut self, task_id: &str, result: pb::GenericResult) {
        if let Some(task) = self.tasks.get_mut(task_id) {
            task.result = Some(result);
            task.draining = true;
            self.demanding.insert(task.pool_id.clone());
        }
    }

    /// The order of a task is complete.
    pub fn record_ordered(&mut self, task_id: &str, now: Seconds) {
        if let Some(task) = self.tasks.get_mut(task_id) {
            task.start.ordered = Some(now);
        }
    }

    /// A stage of the start is done.
    pub fn record_stage(&mut self, task_id: &str, stage: &str, micros: u64, now: Seconds) {
        if let Some(task) = self.tasks.get_mut(task_id) {
            task.start.worker_stage(stage, micros, now);
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
            if let Some(task) = self.tasks.get_mut(task_id) {
                task.signalled = true;
            }
            self.effects.push(Effect::Signal { worker_id, task_id: task_id.to_owned(), signal });
        }
    }

    /// The container takes no further inputs, and goes when it has finished what it holds.
    pub fn release(&mut self, task_id: &str, now: Seconds) {
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        match task.phase {
            TaskPhase::Ended => {}
            TaskPhase::Starting => self.drain(task_id, now),
            TaskPhase::Serving if task.inputs.is_empty() => self.mark_draining(task_id, now + EXIT_HOOKS),
            TaskPhase::Serving => {
                task.draining = true;
                self.demanding.insert(task.pool_id.clone());
                if let Some(pool) = self.pools.get(&task.pool_id) {
                    pool.pulse.beat();
                }
            }
        }
    }

    /// The task shall go, and is killed at `deadline` if it didn't. An earlier deadline stays.
    pub(super) fn mark_draining(&mut self, task_id: &str, deadline: Seconds) {
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        task.draining = true;
        task.kill_at = Some(task.kill_at.map_or(deadline, |earlier| earlier.min(deadline)));
        self.demanding.insert(task.pool_id.clone());
        if let Some(pool) = self.pools.get(&task.pool_id) {
            pool.pulse.beat();
        }
    }

    pub(super) fn kill(&mut self, task_id: &str) {
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        task.draining = true;
        task.signalled = true;
        self.demanding.insert(task.pool_id.clone());
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
        if let Some(machine) = self.machines.get_mut(&task.worker_id) {
            machine.discharge(task, task.phase == TaskPhase::Starting);
        }
        task.phase = TaskPhase::Ended;
        task.idle_since = now;
        let outcome = self.tally.ended(&ending);
        let start = ContainerStart::of(task, self.pools.get(&task.pool_id), "ended", outcome);
        self.ended_starts.push(start);
        let (pool_id, app_id) = (task.pool_id.clone(), task.app_id.clone());
        let mut held: Vec<String> = task.inputs.drain().collect();
        // In the order in which they are taken back: the first one comes first in the queue again.
        held.sort_by_key(|id| {
            std::cmp::Reverse(self.inputs.get(id).map(|input| (input.call_id.clone(), input.idx)))
        });
        let lost = matches!(ending.outcome, Outcome::Lost(_));
        let taken_away = lost || (task.signalled && !ending.out_of_memory);
        let reported = task.result.clone();
        // Someone else wanted it to go: it was stopped, or its definition was replaced.
        let stopped = task.kill_at.is_some() || (task.draining && reported.is_none());
        self.demanding.insert(pool_id.clone());
        let Some(pool) = self.pools.get_mut(&pool_id) else { return };
        pool.tasks.remove(task_id);
        pool.touched = now;
        pool.last_ending = Some(ending.clone());
        if never_served && !stopped && !lost {
            pool.start_failed(now);
        }
        let text = describe(&pool.spec, &ending);
        let is_build = pool.spec.is_build;
        let mut others = pool.tasks.iter().filter_map(|id| self.tasks.get(id));
        let others_serve = others.any(|other| other.phase == TaskPhase::Serving);
        for input_id in held {
            if self.closing && self.is_durable(&input_id) {
                continue;
            }
            if taken_away {
                self.restart(&input_id, &text, now);
            } else {
                self.conclude(&input_id, output(failure(text.clone()), now), now);
            }
        }
        if never_served && !others_serve && !stopped && !lost && !self.closing {
            // Its successor would fail in the same way: the waiting callers get the reason now.
            self.fail_queue(&pool_id, &reported.unwrap_or_else(|| failure(text)), now);
        }
        if let Some(pool) = self.pools.get(&pool_id) {
            pool.pulse.beat();
        }
        // A build waits for the end of its container, after its output.
        for call in self.calls.values().filter(|call| is_build && call.function_id == pool_id) {
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
        for task in self.live_tasks().filter(|task| task.phase == TaskPhase::Serving) {
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
                overdue.push((task.id.clone(), too_late.then_some(startup)));
            }
        }
        for (task_id, too_late) in overdue {
            if let Some(task) = self.tasks.get_mut(&task_id) {
                // Repeated until the worker reports the end.
                if task.kill_at.is_some() {
                    task.kill_at = Some(now + 1.0);
                }
                if let Some(startup) = too_late
                    && task.result.is_none()
                {
                    let name = self.pools.get(&task.pool_id).map_or("the function", |pool| &pool.spec.name);
                    task.result = Some(failure(format!(
                        "The container of {name} did not ask for inputs within its startup timeout of {startup} s: \
                         its import or a method with @modal.enter takes longer. Give it more with \
                         startup_timeout=… or timeout=…."
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

/// How many inputs at the front of the queue make the next batch, and when it is complete: now, or
/// when it has waited long enough for more of the same method.
fn front_batch(
    queue: &VecDeque<String>,
    inputs: &HashMap<String, Input>,
    most: usize,
    linger: Seconds,
) -> (usize, Seconds) {
    if most == 1 || queue.is_empty() {
        return (most, 0.0);
    }
    let mut front = queue.iter().filter_map(|id| inputs.get(id)).peekable();
    let method = |input: &Input| input.payload.as_ref().and_then(|payload| payload.method_name.clone());
    let (first, since) = front.peek().map_or((None, 0.0), |input| (method(input), input.queued_at));
    let ready = front.by_ref().take(most).take_while(|input| method(input) == first).count();
    // Those of another method come after: waiting would bring nothing.
    let is_complete = ready == most || ready < queue.len();
    (ready, if is_complete { 0.0 } else { since + linger })
}

/// An input as the container gets it; none when it is done.
fn work(input: &Input) -> Option<pb::FunctionGetInputsItem> {
    Some(pb::FunctionGetInputsItem {
        input_id: input.id.clone(),
        input: Some(input.payload.clone()?),
        function_call_id: input.call_id.clone(),
        function_map_idx: Some(input.idx),
        retry_count: input.attempt(),
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
