//! How many containers a pool gets.

use super::effect::{Effect, Launch};
use super::placement::Placement;
use super::pool::GpuDemand;
use super::task::{Task, TaskPhase};
use super::{Pool, Scheduler};
use crate::clock::Seconds;

/// How long a pool has more containers than it needs before those that are on their way up are
/// given up: pauses between inputs are often shorter than a start.
const SURPLUS_KEPT: Seconds = 1.0;
/// With more pools than this in want of containers, only the passing of time starts any: a step
/// would cost too much.
const MANY_DEMANDING: usize = 256;
/// How long a function waits for room before its app's log says so: while containers come and go,
/// a short wait is nothing special.
const WAIT_SAID_AFTER: Seconds = 5.0;
/// How long the same reason to wait is not repeated.
const SAID_AGAIN_AFTER: Seconds = 600.0;

/// What a pool has of containers, and what it wants.
#[derive(Debug, Default)]
pub(super) struct Demand {
    /// Containers that take inputs, now or when they are up.
    pub(super) serving: usize,
    /// Containers that count towards the limit: those that are leaving, too, unless they run an
    /// older definition.
    occupied: usize,
    /// Containers that the inputs, the minimum and the buffer ask for, within the limit.
    pub(super) wanted: usize,
}

impl Scheduler {
    pub(super) fn demand(&self, pool: &Pool) -> Demand {
        let mut demand = Demand::default();
        let mut running = 0;
        for task in pool.tasks.iter().filter_map(|id| self.tasks.get(id)) {
            demand.occupied += usize::from(!task.outdated);
            if !task.draining {
                demand.serving += 1;
                running += task.running();
            }
        }
        let spec = &pool.spec;
        let needed = (pool.queue.len() + running).div_ceil(spec.slots());
        let buffer = if needed > 0 { spec.buffer_containers as usize } else { 0 };
        demand.wanted = (needed + buffer).max(spec.min_containers as usize).min(spec.most());
        demand
    }

    /// How many more containers the pool wants than it has.
    fn shortage(&self, pool: &Pool) -> usize {
        if pool.closed {
            return 0;
        }
        let demand = self.demand(pool);
        let room = pool.spec.most().saturating_sub(demand.occupied);
        demand.wanted.saturating_sub(demand.serving).min(room)
    }

    /// Starts the containers that queued inputs need, as far as the machines carry them.
    pub(super) fn scale(&mut self, now: Seconds) {
        if self.demanding.len() <= MANY_DEMANDING {
            self.scale_all(now);
        }
    }

    /// The same, however many pools want containers.
    pub(super) fn scale_all(&mut self, now: Seconds) {
        if self.closing || self.machines.is_empty() {
            return;
        }
        let (mut wanting, mut settled) = (Vec::new(), Vec::new());
        for id in &self.demanding {
            match self.pools.get(id) {
                Some(pool) if self.shortage(pool) > 0 => {
                    if now >= pool.rests_until {
                        wanting.push((pool.last_launch, id.clone()));
                    }
                }
                _ => settled.push(id.clone()),
            }
        }
        for id in settled {
            self.demanding.remove(&id);
            if let Some(pool) = self.pools.get_mut(&id) {
                pool.waits_since = None;
            }
        }
        // The pool that got a container longest ago comes first: one container each round.
        wanting.sort();
        let reserved = self.reservation(wanting.iter().map(|(_, id)| id.as_str()), now);
        while !wanting.is_empty() {
            wanting.retain(|(_, pool_id)| self.launch_one(pool_id, reserved.as_ref(), now));
        }
    }

    /// Starts one container of the pool. True when it may want another one now.
    fn launch_one(&mut self, pool_id: &str, reserved: Option<&(String, String)>, now: Seconds) -> bool {
        let Some(pool) = self.pools.get(pool_id) else { return false };
        if self.shortage(pool) == 0 {
            return false;
        }
        // What is kept free for a pool that waits for long is not for others.
        let kept_free = reserved.filter(|(id, _)| id != pool_id).map(|(_, worker_id)| worker_id.as_str());
        match self.place(&pool.spec, kept_free) {
            Placement::On { worker_id, devices, without_gpu } => {
                self.launch(pool_id, worker_id, devices, without_gpu, now);
                return true;
            }
            Placement::Later => self.waits(pool_id, now),
            Placement::Full => {
                let waited = self.waits(pool_id, now);
                self.make_room(pool_id, waited, now);
                if waited >= WAIT_SAID_AFTER {
                    self.say_waiting(pool_id, "what it needs of the machines is with other containers", now);
                }
                waited
            }
            Placement::Never(reason) => {
                self.say_waiting(pool_id, &reason, now);
                self.waits(pool_id, now)
            }
        };
        false
    }

    /// For how long the pool has had inputs and no container.
    fn waits(&mut self, pool_id: &str, now: Seconds) -> Seconds {
        let Some(pool) = self.pools.get_mut(pool_id) else { return 0.0 };
        if !pool.tasks.is_empty() {
            pool.waits_since = None;
            return 0.0;
        }
        now - *pool.waits_since.get_or_insert(now)
    }

    /// Gives up containers that are on their way up and that nobody needs any more: their calls were
    /// cancelled, or others were faster. One whose process runs already is nearly there and stays.
    pub(super) fn give_up_surplus(&mut self, now: Seconds) {
        let starting = self.live_tasks().filter(|task| task.phase == TaskPhase::Starting);
        let mut pools: Vec<String> = starting.map(|task| task.pool_id.clone()).collect();
        pools.sort();
        pools.dedup();
        for pool_id in pools {
            let Some(pool) = self.pools.get(&pool_id) else { continue };
            let demand = self.demand(pool);
            let surplus = demand.serving.saturating_sub(demand.wanted);
            let mut young: Vec<&Task> = pool
                .tasks
                .iter()
                .filter_map(|id| self.tasks.get(id))
                .filter(|task| {
                    task.phase == TaskPhase::Starting && !task.draining && task.start.process.is_none()
                })
                .collect();
            young.sort_by(|a, b| b.created.total_cmp(&a.created).then(b.id.cmp(&a.id)));
            let needless: Vec<String> = young.iter().take(surplus).map(|task| task.id.clone()).collect();
            let Some(pool) = self.pools.get_mut(&pool_id) else { continue };
            if surplus == 0 {
                pool.surplus_since = None;
            } else if now - *pool.surplus_since.get_or_insert(now) >= SURPLUS_KEPT {
                for task_id in needless {
                    self.drain(&task_id, now);
                }
            }
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
        pool.waits_since = None;
        pool.surplus_since = None;
        let spec = &pool.spec;
        // Unique by the counter and the second of the start, and the same in a replay.
        let counter = self.launched.to_le_bytes();
        let task_id = crate::ids::derived("ta", &[pool_id.as_bytes(), &counter, &now.to_le_bytes()]);
        let waits_longest = pool.queue.front().and_then(|id| self.inputs.get(id));
        let mut task = Task::new(&task_id, spec, &worker_id, devices.clone(), now);
        task.start.queued = waits_longest.map(|input| input.queued_at);
        pool.tasks.insert(task_id.clone());
        if let Some(machine) = self.machines.get_mut(&worker_id) {
            machine.admit(&task);
        }
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

    /// Tells the app why its function waits, and doesn't repeat it.
    fn say_waiting(&mut self, pool_id: &str, reason: &str, now: Seconds) {
        let Some(pool) = self.pools.get_mut(pool_id) else { return };
        let said = pool.waiting_said.as_ref();
        if said.is_some_and(|(last, at)| last == reason && now - at < SAID_AGAIN_AFTER) {
            return;
        }
        pool.waiting_said = Some((reason.to_owned(), now));
        self.effects.push(Effect::Notice {
            app_id: pool.spec.app_id.clone(),
            text: format!("{} waits: {reason}.", pool.spec.name),
        });
    }
}
