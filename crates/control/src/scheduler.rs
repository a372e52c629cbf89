//! Calls, their inputs, and the containers that serve them.
//!
//! The scheduler is a state machine without I/O: it is told what happened and when, answers at
//! once, and leaves what must be done outside in a list of [`Effect`]s. Those who wait subscribe
//! to a counter that moves whenever their object changed. So a seeded test can replay any history.
//!
//! A *pool* is what serves one function (or one set of class parameters): a queue of inputs and
//! the tasks that take from it. A *task* is one container, from the decision to start it to its end.

mod call;
mod conclude;
mod effect;
mod graph;
mod input;
mod intake;
mod placement;
mod places;
mod pool;
mod retry;
mod scaling;
mod starts;
mod stream;
mod tally;
mod task;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::sync::watch;

pub use call::{Call, CallKind, NewCall, OutputsPage, cancelled};
pub use effect::{Effect, Launch, StopSignal};
pub use graph::CallGraph;
pub use input::{Input, NewInput, SavedInput};
pub use pool::{GpuDemand, Pool, PoolSpec, PoolStats};
pub use retry::RetryPolicy;
pub use starts::{ContainerStart, StartRecord, StartStage};
pub use stream::{Appended, Gone};
pub use task::{Ending, Outcome, Take, Task, TaskPhase};
pub use worker::{Gpu, Node};

use crate::clock::Seconds;

/// A counter that moves when an object changed.
#[derive(Debug)]
pub struct Pulse(watch::Sender<u64>);

impl Default for Pulse {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Pulse {
    fn beat(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Subscribes; a change after this call wakes the receiver.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

/// What a cluster of this server may do.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Run functions that ask for a GPU without one where no worker can ever provide it.
    pub gpu_fallback_cpu: bool,
    /// Seconds between the request to stop and the kill.
    pub grace: Seconds,
    /// Seconds for which the results of a finished call stay readable.
    pub retention: Seconds,
}

impl Default for Policy {
    fn default() -> Self {
        Self { gpu_fallback_cpu: false, grace: 5.0, retention: 7.0 * 24.0 * 3600.0 }
    }
}

/// The state machine.
#[derive(Debug, Default)]
pub struct Scheduler {
    policy: Policy,
    calls: HashMap<String, Call>,
    inputs: HashMap<String, Input>,
    pools: HashMap<String, Pool>,
    tasks: HashMap<String, Task>,
    /// By the id of the worker.
    machines: BTreeMap<String, worker::Machine>,
    /// Pools that may want a container. What isn't in it costs a step nothing.
    demanding: BTreeSet<String>,
    effects: Vec<Effect>,
    launched: u64,
    forget_at: Seconds,
    retire_at: Seconds,
    tally: tally::Tally,
    ended_starts: starts::EndedStarts,
    /// The server ends: nothing new starts, and calls that survive it keep their inputs.
    closing: bool,
}

impl Scheduler {
    /// An empty scheduler.
    pub fn new(policy: Policy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// The server is about to end its containers. Durable calls stay unfinished, for the next start.
    pub fn begin_shutdown(&mut self) {
        self.closing = true;
    }

    /// Takes what must be done outside since the last call.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The call `id`.
    pub fn call(&self, id: &str) -> Option<&Call> {
        self.calls.get(id)
    }

    /// The input `id`.
    pub fn input(&self, id: &str) -> Option<&Input> {
        self.inputs.get(id)
    }

    /// The task `id`.
    pub fn task(&self, id: &str) -> Option<&Task> {
        self.tasks.get(id)
    }

    /// The pool of the function `id`.
    pub fn pool(&self, id: &str) -> Option<&Pool> {
        self.pools.get(id)
    }

    /// The tasks that have not ended.
    pub fn live_tasks(&self) -> impl Iterator<Item = &Task> {
        self.machines.values().flat_map(|machine| &machine.tasks).filter_map(|id| self.tasks.get(id))
    }

    /// The tasks that are remembered, ended ones for a while.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values()
    }

    /// Whether any container of the app is still there.
    pub fn app_has_tasks(&self, app_id: &str) -> bool {
        self.live_tasks().any(|task| task.app_id == app_id)
    }

    /// The passing of time: timeouts, idle containers, grace periods, retention.
    pub fn tick(&mut self, now: Seconds) {
        self.release_delayed(now);
        self.expire_inputs(now);
        self.enforce_cancellations(now);
        self.expire_tasks(now);
        self.forget_finished(now);
        self.give_up_surplus(now);
        self.scale_all(now);
        self.retire_unused(now);
        self.measure();
    }
}
