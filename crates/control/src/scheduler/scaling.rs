//! How many containers a pool gets, and where.

use super::effect::{Effect, Launch};
use super::pool::GpuDemand;
use super::task::{EXIT_HOOKS, Task, TaskPhase};
use super::{Pool, Scheduler};
use crate::clock::Seconds;

/// Containers that may be on their way up on one worker for each of its cores. Starting is mostly
/// CPU work: more at once only makes all of them late.
const STARTS_PER_CORE: usize = 2;

enum Placement {
    On {
        worker_id: String,
        devices: Vec<String>,
        without_gpu: Option<GpuDemand>,
    },
    /// Something must happen first: a worker, or the end of another start.
    Later,
    /// This worker could, but its resources are with other containers.
    Full {
        worker_id: String,
    },
    /// No worker can ever do it; the reason.
    Never(String),
}

impl Scheduler {
    /// Starts the containers that queued inputs need, as far as the workers carry them.
    pub(super) fn scale(&mut self, now: Seconds) {
        let mut wanting: Vec<(u64, String)> = self
            .pools
            .values()
            .filter(|pool| self.shortage(pool, now) > 0)
            .map(|pool| (pool.last_launch, pool.spec.function_id.clone()))
            .collect();
        // The pool that got a container longest ago comes first: one container each round.
        wanting.sort();
        while !wanting.is_empty() {
            wanting.retain(|(_, pool_id)| self.launch_one(pool_id, now));
        }
    }

    /// How many more containers the pool wants than it has.
    fn shortage(&self, pool: &Pool, now: Seconds) -> usize {
        if pool.closed || self.closing || now < pool.rests_until {
            return 0;
        }
        let serving: Vec<&Task> = self
            .live_tasks()
            .filter(|task| task.pool_id == pool.spec.function_id && !task.draining)
            .collect();
        let running: usize = serving.iter().map(|task| task.inputs.len()).sum();
        let slots = pool.spec.concurrency.max(1) as usize;
        let most = pool.spec.max_containers.map_or(usize::MAX, |most| most.max(1) as usize);
        let wanted =
            (pool.queue.len() + running).div_ceil(slots).max(pool.spec.min_containers as usize).min(most);
        wanted.saturating_sub(serving.len())
    }

    /// Starts one container of the pool. True when it may want another one now.
    fn launch_one(&mut self, pool_id: &str, now: Seconds) -> bool {
        let Some(pool) = self.pools.get(pool_id) else { return false };
        if self.shortage(pool, now) == 0 {
            return false;
        }
        match self.place(pool) {
            Placement::On { worker_id, devices, without_gpu } => {
                self.launch(pool_id, worker_id, devices, without_gpu, now);
                true
            }
            Placement::Later => false,
            Placement::Full { worker_id } => {
                self.make_room(pool_id, &worker_id, now);
                false
            }
            Placement::Never(reason) => {
                self.say_waiting(pool_id, &reason);
                false
            }
        }
    }

    fn place(&self, pool: &Pool) -> Placement {
        let spec = &pool.spec;
        if self.nodes.is_empty() {
            return Placement::Later;
        }
        let fits =
            |node: &&super::Node| node.milli_cpu >= spec.milli_cpu && node.memory_bytes >= spec.memory_bytes;
        if !self.nodes.values().any(|node| fits(&node)) {
            return Placement::Never(format!(
                "no machine has {:.2} cores and {} MiB of memory",
                f64::from(spec.milli_cpu) / 1000.0,
                spec.memory_bytes >> 20
            ));
        }
        let possible: Vec<&GpuDemand> = spec
            .gpus
            .iter()
            .filter(|demand| self.nodes.values().filter(fits).any(|node| node.could_provide(demand)))
            .collect();
        let mut without_gpu = None;
        if possible.is_empty()
            && let Some(first) = spec.gpus.first()
        {
            if !self.policy.gpu_fallback_cpu {
                let asked: Vec<String> = spec.gpus.iter().map(ToString::to_string).collect();
                return Placement::Never(format!(
                    "no machine has the GPU that it asks for ({})",
                    asked.join(", ")
                ));
            }
            without_gpu = Some(first.clone());
        }
        let mut full = None;
        for node in self.nodes.values().filter(fits) {
            let here: Vec<&Task> = self.live_tasks().filter(|task| task.worker_id == node.id).collect();
            let milli_cpu: u32 = here.iter().map(|task| task.milli_cpu).sum();
            let memory: u64 = here.iter().map(|task| task.memory_bytes).sum();
            let starting = here.iter().filter(|task| task.phase == TaskPhase::Starting).count();
            let may_start = (node.milli_cpu as usize / 1000).max(1) * STARTS_PER_CORE;
            if milli_cpu + spec.milli_cpu > node.milli_cpu || memory + spec.memory_bytes > node.memory_bytes {
                full.get_or_insert(node.id.clone());
                continue;
            }
            if starting >= may_start {
                continue;
            }
            if possible.is_empty() {
                return Placement::On { worker_id: node.id.clone(), devices: Vec::new(), without_gpu };
            }
            for demand in &possible {
                let devices: Vec<String> = node
                    .matching(demand)
                    .map(|gpu| gpu.device.clone())
                    .filter(|device| !here.iter().any(|task| task.devices.contains(device)))
                    .take(demand.count as usize)
                    .collect();
                if devices.len() == demand.count as usize {
                    return Placement::On { worker_id: node.id.clone(), devices, without_gpu: None };
                }
            }
            full.get_or_insert(node.id.clone());
        }
        full.map_or(Placement::Later, |worker_id| Placement::Full { worker_id })
    }

    /// Lets the container that has been idle for longest go, so that a waiting pool gets its place.
    fn make_room(&mut self, pool_id: &str, worker_id: &str, now: Seconds) {
        // On a machine without GPUs the function runs without: any container there is in its way.
        let has_gpus = self.nodes.get(worker_id).is_some_and(|node| !node.gpus.is_empty());
        let wants_gpu = has_gpus && self.pools.get(pool_id).is_some_and(|pool| !pool.spec.gpus.is_empty());
        let here = || self.live_tasks().filter(|task| task.worker_id == worker_id);
        // One at a time: what leaves already may be enough.
        if here().any(|task| task.draining) {
            return;
        }
        let idle = here().filter(|task| {
            let wanted = self.pools.get(&task.pool_id).is_some_and(|pool| !pool.queue.is_empty());
            task.phase == TaskPhase::Serving
                && task.inputs.is_empty()
                && !wanted
                && task.devices.is_empty() != wants_gpu
                && self.may_leave(&task.id)
        });
        let longest = idle.min_by(|a, b| a.idle_since.total_cmp(&b.idle_since)).map(|task| task.id.clone());
        if let Some(task_id) = longest {
            self.mark_draining(&task_id, now + EXIT_HOOKS);
        }
    }

    fn launch(
        &mut self,
        pool_id: &str,
        worker_id: String,
        devices: Vec<String>,
        without_gpu: Option<GpuDemand>,
        now: Seconds,
    ) {
        self.launched += 1;
        let Some(pool) = self.pools.get_mut(pool_id) else { return };
        pool.last_launch = self.launched;
        pool.waiting_said = None;
        let spec = &pool.spec;
        // Unique by the counter and the second of the start, and the same in a replay.
        let counter = self.launched.to_le_bytes();
        let task_id = crate::ids::derived("ta", &[pool_id.as_bytes(), &counter, &now.to_le_bytes()]);
        let task = Task::new(&task_id, spec, &worker_id, devices.clone(), now);
        self.tasks.insert(task_id.clone(), task);
        self.tally.started();
        self.effects.push(Effect::Launch(Launch {
            task_id,
            function_id: pool_id.to_owned(),
            worker_id,
            devices,
            without_gpu,
        }));
    }

    /// Tells the app once why its function waits.
    fn say_waiting(&mut self, pool_id: &str, reason: &str) {
        let Some(pool) = self.pools.get_mut(pool_id) else { return };
        if pool.waiting_said.as_deref() == Some(reason) {
            return;
        }
        pool.waiting_said = Some(reason.to_owned());
        self.effects.push(Effect::Notice {
            app_id: pool.spec.app_id.clone(),
            text: format!("{} waits: {reason}.", pool.spec.name),
        });
    }
}
