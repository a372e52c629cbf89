//! Pools: the queue and the demand of one function.

use std::collections::VecDeque;

use homeport_proto::client as pb;

use super::{Ending, Pulse, Scheduler};
use crate::clock::Seconds;

/// Starts in a row that may fail before the pool rests between further ones.
const FAILED_STARTS: u32 = 3;
/// The longest rest.
const LONGEST_REST: Seconds = 30.0;

/// One acceptable kind of GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuDemand {
    /// The model in upper case; none means any.
    pub model: Option<String>,
    /// How many.
    pub count: u32,
}

impl std::fmt::Display for GpuDemand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.model.as_deref().unwrap_or("any"), self.count)
    }
}

/// How a function wants to be served.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolSpec {
    /// The function, for class parameters the bound one. Also the pool's id.
    pub function_id: String,
    /// Its app.
    pub app_id: String,
    /// What users call it.
    pub name: String,
    /// Inputs that one container takes at the same time.
    pub concurrency: u32,
    /// The most containers; none means what the machines can carry.
    pub max_containers: Option<u32>,
    /// Containers that stay without inputs.
    pub min_containers: u32,
    /// Seconds without input after which a container goes.
    pub idle: Seconds,
    /// Seconds for one input.
    pub timeout: Seconds,
    /// Seconds until a container asks for its first input.
    pub startup_timeout: Seconds,
    /// Thousandths of a core that placement reserves.
    pub milli_cpu: u32,
    /// Bytes of memory that placement reserves.
    pub memory_bytes: u64,
    /// Bytes of memory that a container may use; 0 = what the worker allows.
    pub memory_limit: u64,
    /// Acceptable GPUs in the order of preference; empty means none is needed.
    pub gpus: Vec<GpuDemand>,
    /// A build: one container, one input, commit at the end.
    pub is_build: bool,
}

/// A function's queue.
#[derive(Debug)]
pub struct Pool {
    /// How it wants to be served.
    pub spec: PoolSpec,
    pub(super) queue: VecDeque<String>,
    pub(super) pulse: Pulse,
    pub(super) waiting_said: Option<String>,
    pub(super) last_launch: u64,
    pub(super) closed: bool,
    pub(super) failed_starts: u32,
    pub(super) rests_until: Seconds,
    /// How the newest container of a build ended.
    pub last_ending: Option<Ending>,
}

impl Pool {
    /// Inputs that wait.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Subscribes to changes of the queue.
    pub fn watch(&self) -> tokio::sync::watch::Receiver<u64> {
        self.pulse.subscribe()
    }

    /// A container ended before it served. One that always does must not keep the machine busy.
    pub(super) fn start_failed(&mut self, now: Seconds) {
        self.failed_starts += 1;
        if let Some(excess) = self.failed_starts.checked_sub(FAILED_STARTS) {
            self.rests_until = now + Seconds::from(1 << excess.min(5)).min(LONGEST_REST);
        }
    }
}

impl Scheduler {
    /// Makes the pool of a function, or gives it a new specification.
    pub fn set_pool(&mut self, spec: PoolSpec, now: Seconds) {
        match self.pools.get_mut(&spec.function_id) {
            Some(pool) => {
                pool.spec = spec;
                pool.last_ending = None;
                pool.failed_starts = 0;
                pool.rests_until = 0.0;
            }
            None => {
                let id = spec.function_id.clone();
                let pool = Pool {
                    spec,
                    queue: VecDeque::new(),
                    pulse: Pulse::default(),
                    waiting_said: None,
                    last_launch: 0,
                    closed: false,
                    failed_starts: 0,
                    rests_until: 0.0,
                    last_ending: None,
                };
                self.pools.insert(id, pool);
            }
        }
        self.scale(now);
    }

    /// The function has a new definition: containers of the old one finish what they hold and go.
    /// Comes before the new specification, so that it doesn't meet the first container of that one.
    pub fn renew(&mut self, pool_id: &str) {
        for task in self.tasks.values_mut().filter(|task| task.pool_id == pool_id) {
            task.draining = true;
        }
        if let Some(pool) = self.pools.get(pool_id) {
            pool.pulse.beat();
        }
    }

    /// Ends all that belongs to an app: queued inputs, then containers.
    pub fn stop_app(&mut self, app_id: &str, now: Seconds) {
        let pools: Vec<String> = self
            .pools
            .values_mut()
            .filter(|pool| pool.spec.app_id == app_id)
            .map(|pool| {
                pool.closed = true;
                pool.spec.function_id.clone()
            })
            .collect();
        for pool_id in &pools {
            self.fail_queue(pool_id, &stopped(), now);
        }
        let tasks: Vec<String> =
            self.live_tasks().filter(|task| task.app_id == app_id).map(|task| task.id.clone()).collect();
        if tasks.is_empty() {
            self.effects.push(super::Effect::AppQuiet { app_id: app_id.to_owned() });
        }
        for task_id in tasks {
            self.drain(&task_id, now);
        }
    }

    /// Gives every queued input of a pool the same failure.
    pub(super) fn fail_queue(&mut self, pool_id: &str, result: &pb::GenericResult, now: Seconds) {
        let Some(pool) = self.pools.get_mut(pool_id) else { return };
        for input_id in std::mem::take(&mut pool.queue) {
            self.conclude(&input_id, super::call::output(result.clone(), now), now);
        }
        if let Some(pool) = self.pools.get(pool_id) {
            pool.pulse.beat();
        }
    }
}

/// What inputs of an app get that is stopped.
pub(super) fn stopped() -> pb::GenericResult {
    super::call::failure("The app was stopped.".to_owned())
}
