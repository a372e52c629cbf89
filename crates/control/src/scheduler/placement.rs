//! Where a container goes, and who makes room for it.

use std::collections::{BTreeMap, BTreeSet};

use super::pool::{GpuDemand, PoolSpec};
use super::task::{Task, TaskPhase};
use super::worker::Machine;
use super::{Policy, Scheduler};
use crate::clock::Seconds;

/// Containers that may be on their way up on one machine for each of its cores. Starting is mostly
/// CPU work: more at once only makes all of them late.
const STARTS_PER_CORE: usize = 2;
/// How long a pool without a container waits until busy containers of other pools leave for it,
/// after what they hold, and the room is kept for it.
pub(super) const PATIENCE: Seconds = 10.0;
/// How long a pool may have the only container that there is room for while another one waits.
const TURN: Seconds = 60.0;

/// What can be done about a wish for a container.
#[derive(Debug)]
pub(super) enum Placement {
    /// Start it there.
    On {
        /// The machine.
        worker_id: String,
        /// CDI device names.
        devices: Vec<String>,
        /// Set when it asked for a GPU and gets none.
        without_gpu: Option<GpuDemand>,
    },
    /// Another start must end first.
    Later,
    /// What it needs is with other containers.
    Full,
    /// No machine can ever do it; the reason.
    Never(String),
}

/// What the machines could give to a function, all of them free.
struct Wish<'a> {
    spec: &'a PoolSpec,
    /// The GPUs that would do and exist; none if it runs without.
    gpus: Vec<&'a GpuDemand>,
    without_gpu: Option<GpuDemand>,
}

impl<'a> Wish<'a> {
    fn new(spec: &'a PoolSpec, policy: Policy, machines: &BTreeMap<String, Machine>) -> Result<Self, String> {
        let large_enough: Vec<&Machine> =
            machines.values().filter(|machine| is_large(machine, spec)).collect();
        if large_enough.is_empty() {
            return Err(format!(
                "no machine has {:.2} cores and {} MiB of memory",
                f64::from(spec.milli_cpu) / 1000.0,
                spec.memory_bytes >> 20
            ));
        }
        let exists =
            |demand: &&GpuDemand| large_enough.iter().any(|machine| machine.node.could_provide(demand));
        let gpus: Vec<&GpuDemand> = spec.gpus.iter().filter(exists).collect();
        let without_gpu = if gpus.is_empty() { spec.gpus.first().cloned() } else { None };
        if without_gpu.is_some() && !policy.gpu_fallback_cpu {
            let asked: Vec<String> = spec.gpus.iter().map(ToString::to_string).collect();
            return Err(format!("no machine has the GPU that it asks for ({})", asked.join(", ")));
        }
        Ok(Self { spec, gpus, without_gpu })
    }

    /// Whether the machine, all of it free, could run it.
    fn suits(&self, machine: &Machine) -> bool {
        let provides = |demand: &&GpuDemand| machine.node.could_provide(demand);
        is_large(machine, self.spec) && (self.gpus.is_empty() || self.gpus.iter().any(provides))
    }
}

fn is_large(machine: &Machine, spec: &PoolSpec) -> bool {
    machine.node.milli_cpu >= spec.milli_cpu && machine.node.memory_bytes >= spec.memory_bytes
}

impl Scheduler {
    /// A place for a container like this, not on the machine that is kept free.
    pub(super) fn place(&self, spec: &PoolSpec, kept_free: Option<&str>) -> Placement {
        let wish = match Wish::new(spec, self.policy, &self.machines) {
            Ok(wish) => wish,
            Err(reason) => return Placement::Never(reason),
        };
        let mut busy_starting = false;
        let suitable = self.machines.iter().filter(|(_, machine)| wish.suits(machine));
        for (worker_id, machine) in suitable {
            if kept_free == Some(worker_id.as_str()) || !machine.has_room(spec) {
                continue;
            }
            let devices = if wish.gpus.is_empty() {
                Some(Vec::new())
            } else {
                wish.gpus.iter().find_map(|demand| machine.free_devices(demand))
            };
            let Some(devices) = devices else { continue };
            if machine.starting >= (machine.node.milli_cpu as usize / 1000).max(1) * STARTS_PER_CORE {
                busy_starting = true;
                continue;
            }
            let (worker_id, without_gpu) = (worker_id.clone(), wish.without_gpu.clone());
            return Placement::On { worker_id, devices, without_gpu };
        }
        if busy_starting { Placement::Later } else { Placement::Full }
    }

    /// The pool that has waited longest without any container, if that is long, and the machine on
    /// which room is kept for it: else what leaves in small pieces would never make a large one.
    pub(super) fn reservation<'a>(
        &self,
        pools: impl Iterator<Item = &'a str>,
        now: Seconds,
    ) -> Option<(String, String)> {
        let waiting = pools.filter_map(|id| {
            let pool = self.pools.get(id)?;
            let since = pool.waits_since.filter(|since| now - since >= PATIENCE)?;
            Some((since, pool))
        });
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_by(|(a, one), (b, other)| {
            a.total_cmp(b).then_with(|| one.spec.function_id.cmp(&other.spec.function_id))
        });
        waiting.iter().find_map(|(_, pool)| {
            let wish = Wish::new(&pool.spec, self.policy, &self.machines).ok()?;
            let (worker_id, _) = self.machines.iter().find(|(_, machine)| wish.suits(machine))?;
            Some((pool.spec.function_id.clone(), worker_id.clone()))
        })
    }

    /// Lets containers of other pools go, so that one that waits gets their place: idle ones, and
    /// after a long wait busy ones that finish what they hold. None goes if it would not be enough.
    pub(super) fn make_room(&mut self, pool_id: &str, waited: Seconds, now: Seconds) {
        let Some(pool) = self.pools.get(pool_id) else { return };
        let Ok(wish) = Wish::new(&pool.spec, self.policy, &self.machines) else { return };
        let suitable = self.machines.values().filter(|machine| wish.suits(machine));
        let leaving = suitable.filter_map(|machine| self.who_leaves(&wish, machine, waited, now)).next();
        for task_id in leaving.unwrap_or_default() {
            self.release(&task_id, now);
        }
    }

    /// Whose places on this machine, with those that become free anyway, are enough. None if there
    /// are not enough.
    fn who_leaves(
        &self,
        wish: &Wish<'_>,
        machine: &Machine,
        waited: Seconds,
        now: Seconds,
    ) -> Option<Vec<String>> {
        let here = || machine.tasks.iter().filter_map(|id| self.tasks.get(id));
        let mut gone: BTreeSet<&str> =
            here().filter(|task| task.draining).map(|task| task.id.as_str()).collect();
        let mut chosen = Vec::new();
        let mut candidates: Vec<&Task> =
            here().filter(|task| self.may_be_asked(task, &wish.spec.function_id, waited, now)).collect();
        let pool_size = |task: &Task| self.pools.get(&task.pool_id).map_or(0, |pool| pool.tasks.len());
        // The longest idle first, then busy ones of the largest pool; those with GPUs last.
        candidates.sort_by(|a, b| {
            let order = match a.is_idle() {
                true => a.idle_since.total_cmp(&b.idle_since),
                false => pool_size(b).cmp(&pool_size(a)).then(a.created.total_cmp(&b.created)),
            };
            let last = |task: &Task| (!task.is_idle(), !task.devices.is_empty());
            last(a).cmp(&last(b)).then(order).then(a.id.cmp(&b.id))
        });
        let mut asked: BTreeMap<&str, usize> = BTreeMap::new();
        let mut candidates = candidates.into_iter();
        loop {
            if self.suffices(wish, machine, &gone) {
                return Some(chosen);
            }
            let task = candidates.next()?;
            let of_pool = asked.entry(task.pool_id.as_str()).or_default();
            if !task.holds_what(wish, machine) || !self.pool_spares(task, *of_pool, waited, now) {
                continue;
            }
            *of_pool += 1;
            gone.insert(task.id.as_str());
            chosen.push(task.id.clone());
        }
    }

    /// Whether the wish is met once these have gone.
    fn suffices(&self, wish: &Wish<'_>, machine: &Machine, gone: &BTreeSet<&str>) -> bool {
        let staying = || {
            let tasks = machine.tasks.iter().filter(|id| !gone.contains(id.as_str()));
            tasks.filter_map(|id| self.tasks.get(id))
        };
        let milli_cpu: u32 = staying().map(|task| task.milli_cpu).sum();
        let memory: u64 = staying().map(|task| task.memory_bytes).sum();
        let devices: BTreeSet<&str> = staying().flat_map(|task| &task.devices).map(String::as_str).collect();
        let free = |demand: &GpuDemand| {
            machine.node.matching(demand).filter(|gpu| !devices.contains(gpu.device.as_str())).count()
        };
        milli_cpu.saturating_add(wish.spec.milli_cpu) <= machine.node.milli_cpu
            && memory.saturating_add(wish.spec.memory_bytes) <= machine.node.memory_bytes
            && (wish.gpus.is_empty() || wish.gpus.iter().any(|demand| free(demand) >= demand.count as usize))
    }

    fn may_be_asked(&self, task: &Task, for_pool: &str, waited: Seconds, now: Seconds) -> bool {
        if task.pool_id == for_pool || task.draining || task.phase != TaskPhase::Serving {
            return false;
        }
        if task.is_idle() {
            // One whose pool has inputs is about to take them.
            return self.pools.get(&task.pool_id).is_none_or(|pool| pool.queue.is_empty());
        }
        waited >= PATIENCE && !task.is_build && now - task.created >= PATIENCE
    }

    /// Whether the pool can do without this container when `asked` others of it were asked already.
    fn pool_spares(&self, task: &Task, asked: usize, waited: Seconds, now: Seconds) -> bool {
        let Some(pool) = self.pools.get(&task.pool_id) else { return true };
        let others = self.demand(pool).serving.saturating_sub(1 + asked);
        if others < pool.spec.min_containers as usize {
            return false;
        }
        task.is_idle() || others > 0 || (waited >= TURN && now - task.created >= TURN)
    }
}

impl Task {
    fn is_idle(&self) -> bool {
        self.running() == 0
    }

    /// Whether its end would bring the wish nearer.
    fn holds_what(&self, wish: &Wish<'_>, machine: &Machine) -> bool {
        if !machine.has_room(wish.spec) {
            return true;
        }
        let holds =
            |demand: &&GpuDemand| machine.node.matching(demand).any(|gpu| self.devices.contains(&gpu.device));
        wish.gpus.iter().any(holds)
    }
}
