//! Pools: the queue and the demand of one function.

use std::collections::{BTreeSet, VecDeque};

use homeport_proto::client as pb;

use super::{Ending, Pulse, RetryPolicy, Scheduler, TaskPhase};
use crate::clock::Seconds;

/// Starts in a row that may fail before the pool rests between further ones.
const FAILED_STARTS: u32 = 3;
/// The longest rest.
const LONGEST_REST: Seconds = 30.0;
/// How long the pool of a bound function stays after its last use. Long enough for whoever was
/// told of it a moment ago to put inputs.
const UNUSED_POOL_KEPT: Seconds = 60.0;
/// Between two looks for such pools.
const RETIRE_INTERVAL: Seconds = 10.0;

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
    /// Inputs that one container shall have at the same time, or batches of them: the number of
    /// containers is reckoned with it.
    pub concurrency: u32,
    /// The most inputs, or batches, that one container takes at the same time; not less than
    /// `concurrency`.
    pub most_concurrency: u32,
    /// Inputs in a full batch; 1 for a function that takes them one by one.
    pub batch_size: u32,
    /// A container goes after its first input.
    pub single_use: bool,
    /// The most containers; none means what the machines can carry.
    pub max_containers: Option<u32>,
    /// Containers that stay without inputs.
    pub min_containers: u32,
    /// Containers beyond those that the inputs need, as long as there are any.
    pub buffer_containers: u32,
    /// Seconds without input after which a container goes.
    pub idle: Seconds,
    /// Seconds for one input.
    pub timeout: Seconds,
    /// How often failed inputs are tried again.
    pub retry: RetryPolicy,
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
    /// Another function with parameters or options: it can be made again from them, so it is
    /// forgotten while nobody uses it.
    pub is_bound: bool,
}

impl PoolSpec {
    /// Inputs that one container shall have at the same time.
    pub(super) fn slots(&self) -> usize {
        let slots = self.concurrency.max(1).saturating_mul(self.batch_size.max(1));
        if self.single_use || self.is_build { self.batch_size.max(1) as usize } else { slots as usize }
    }

    /// The most containers.
    pub(super) fn most(&self) -> usize {
        self.max_containers.map_or(usize::MAX, |most| most.max(1) as usize)
    }
}

/// A function's queue.
#[derive(Debug)]
pub struct Pool {
    /// How it wants to be served.
    pub spec: PoolSpec,
    pub(super) queue: VecDeque<String>,
    /// Inputs that wait for another attempt: when it is due, in microseconds, and their ids.
    pub(super) delayed: BTreeSet<(u64, String)>,
    /// Its containers that have not ended; those that are leaving, too.
    pub(super) tasks: BTreeSet<String>,
    pub(super) pulse: Pulse,
    /// Since when it has inputs and no container.
    pub(super) waits_since: Option<Seconds>,
    /// What was last said about why it waits, and when.
    pub(super) waiting_said: Option<(String, Seconds)>,
    /// Since when it has more containers than it needs.
    pub(super) surplus_since: Option<Seconds>,
    /// When it was last used.
    pub(super) touched: Seconds,
    pub(super) last_launch: u64,
    pub(super) closed: bool,
    pub(super) failed_starts: u32,
    pub(super) rests_until: Seconds,
    /// How the newest container of a build ended.
    pub last_ending: Option<Ending>,
}

/// What a pool has to do now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Inputs that wait.
    pub queued: usize,
    /// Inputs that containers hold.
    pub running: usize,
    /// Containers that start or serve.
    pub containers: usize,
    /// Further inputs that the containers that serve could take.
    pub headroom: usize,
}

impl Pool {
    fn new(spec: PoolSpec, now: Seconds) -> Self {
        Self {
            spec,
            queue: VecDeque::new(),
            delayed: BTreeSet::new(),
            tasks: BTreeSet::new(),
            pulse: Pulse::default(),
            waits_since: None,
            waiting_said: None,
            surplus_since: None,
            touched: now,
            last_launch: 0,
            closed: false,
            failed_starts: 0,
            rests_until: 0.0,
            last_ending: None,
        }
    }

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
        let id = spec.function_id.clone();
        match self.pools.get_mut(&id) {
            Some(pool) => {
                pool.spec = spec;
                pool.touched = now;
                pool.last_ending = None;
                pool.failed_starts = 0;
                pool.rests_until = 0.0;
                // Those who wait reckon with the old one.
                pool.pulse.beat();
            }
            None => {
                self.pools.insert(id.clone(), Pool::new(spec, now));
            }
        }
        self.shrink_to_limit(&id, now);
        self.demanding.insert(id);
        self.scale(now);
    }

    /// The function has a new definition: containers of the old one finish what they hold and go.
    /// Comes before the new specification, so that it doesn't meet the first container of that one.
    pub fn renew(&mut self, pool_id: &str, now: Seconds) {
        let Some(pool) = self.pools.get(pool_id) else { return };
        let tasks: Vec<String> = pool.tasks.iter().cloned().collect();
        for task_id in &tasks {
            if let Some(task) = self.tasks.get_mut(task_id) {
                task.outdated = true;
            }
        }
        for task_id in tasks {
            self.release(&task_id, now);
        }
        self.demanding.insert(pool_id.to_owned());
    }

    /// Somebody is about to put inputs: the pool stays for a while. False if there is none.
    pub fn keep_pool(&mut self, pool_id: &str, now: Seconds) -> bool {
        let pool = self.pools.get_mut(pool_id);
        pool.map(|pool| pool.touched = now).is_some()
    }

    /// A limit that was lowered holds for the containers that are there: the idle ones leave first,
    /// busy ones when they have finished what they hold.
    fn shrink_to_limit(&mut self, pool_id: &str, now: Seconds) {
        let Some(pool) = self.pools.get(pool_id) else { return };
        let mut serving: Vec<_> =
            pool.tasks.iter().filter_map(|id| self.tasks.get(id)).filter(|task| !task.draining).collect();
        let excess = serving.len().saturating_sub(pool.spec.most());
        serving.sort_by(|a, b| {
            a.running().cmp(&b.running()).then(b.created.total_cmp(&a.created)).then(a.id.cmp(&b.id))
        });
        let leaving: Vec<String> = serving.iter().take(excess).map(|task| task.id.clone()).collect();
        for task_id in leaving {
            self.release(&task_id, now);
        }
    }

    /// What the pool has to do; none if there is no such pool.
    pub fn stats(&self, pool_id: &str) -> Option<PoolStats> {
        let pool = self.pools.get(pool_id)?;
        let queued = pool.queue.len() + pool.delayed.len();
        let mut stats = PoolStats { queued, ..Default::default() };
        for task in pool.tasks.iter().filter_map(|id| self.tasks.get(id)) {
            stats.running += task.running();
            stats.containers += usize::from(!task.draining);
            if task.phase == TaskPhase::Serving && !task.draining {
                stats.headroom += pool.spec.slots().saturating_sub(task.running());
            }
        }
        Some(stats)
    }

    /// How many inputs a container of the pool shall hold now: as many as it shall have, and up to
    /// the most while inputs wait that no further container takes.
    pub fn concurrency(&self, pool_id: &str, target: u32, most: u32) -> u32 {
        let target = target.max(1);
        let Some(pool) = self.pools.get(pool_id) else { return target };
        let serving = pool.tasks.iter().filter_map(|id| self.tasks.get(id));
        let serving = serving.filter(|task| task.phase == TaskPhase::Serving && !task.draining).count();
        let waiting =
            pool.queue.len().div_ceil(serving.max(1)).div_ceil(pool.spec.batch_size.max(1) as usize);
        let wanted = target.saturating_add(u32::try_from(waiting).unwrap_or(u32::MAX));
        wanted.min(most.max(target))
    }

    /// Forgets pools of bound functions that nobody uses.
    pub(super) fn retire_unused(&mut self, now: Seconds) {
        if now < self.retire_at {
            return;
        }
        self.retire_at = now + RETIRE_INTERVAL;
        let mut unused: Vec<String> = self
            .pools
            .values()
            .filter(|pool| {
                pool.spec.is_bound
                    && pool.queue.is_empty()
                    && pool.delayed.is_empty()
                    && pool.tasks.is_empty()
                    && pool.spec.min_containers == 0
                    && now - pool.touched > UNUSED_POOL_KEPT
            })
            .map(|pool| pool.spec.function_id.clone())
            .collect();
        unused.sort();
        for function_id in unused {
            self.pools.remove(&function_id);
            self.demanding.remove(&function_id);
            self.effects.push(super::Effect::Retired { function_id });
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
            self.fail_delayed(pool_id, &stopped(), now);
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
