//! Random histories of several machines: arrivals, deaths, losses of machines, new definitions.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;
use crate::scheduler::input::Progress;

const POOLS: [&str; 5] = ["one", "many", "batched", "gpu", "large"];
const MACHINES: [&str; 3] = ["a", "b", "c"];

fn specs() -> Vec<PoolSpec> {
    let retry = RetryPolicy { most: 2, first_delay: 2.0, ..RetryPolicy::default() };
    let gpus = vec![GpuDemand { model: None, count: 1 }];
    vec![
        PoolSpec { max_containers: Some(1), single_use: true, timeout: 40.0, ..spec("one") },
        PoolSpec { max_containers: Some(6), concurrency: 2, most_concurrency: 3, retry, ..spec("many") },
        PoolSpec { batch_size: 3, buffer_containers: 1, max_containers: Some(4), ..spec("batched") },
        PoolSpec { gpus, milli_cpu: 500, retry, timeout: 40.0, ..spec("gpu") },
        PoolSpec { milli_cpu: 2000, idle: 30.0, ..spec("large") },
    ]
}

fn machine(id: &str) -> Node {
    let model = if id == "a" { &["T4", "T4"][..] } else { &[][..] };
    let gpus = model.iter().enumerate();
    let gpus =
        gpus.map(|(n, model)| Gpu { device: format!("{id}/gpu={n}"), model: (*model).to_owned() }).collect();
    Node { id: id.to_owned(), milli_cpu: 2000, memory_bytes: GIB, gpus }
}

/// What can happen from outside.
#[derive(Debug, Clone)]
enum Event {
    Put { pool: usize, count: i32 },
    Take { task: usize },
    Finish { task: usize, well: bool },
    Die { task: usize, code: i32 },
    Lose { machine: usize },
    Attach { machine: usize },
    Cancel { call: usize },
    Renew { pool: usize },
    Pass { seconds: f64 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..5usize, 1..9i32).prop_map(|(pool, count)| Event::Put { pool, count }),
        12 => (0..24usize).prop_map(|task| Event::Take { task }),
        8 => (0..24usize, proptest::bool::weighted(0.8)).prop_map(|(task, well)| Event::Finish { task, well }),
        2 => (0..24usize, 0..2i32).prop_map(|(task, code)| Event::Die { task, code }),
        1 => (0..3usize).prop_map(|machine| Event::Lose { machine }),
        1 => (0..3usize).prop_map(|machine| Event::Attach { machine }),
        1 => (0..12usize).prop_map(|call| Event::Cancel { call }),
        1 => (0..5usize).prop_map(|pool| Event::Renew { pool }),
        6 => (0.1..25.0f64).prop_map(|seconds| Event::Pass { seconds }),
    ]
}

struct Fleet {
    s: Scheduler,
    now: f64,
    calls: Vec<String>,
    /// What containers have in their hands; not always what the scheduler thinks that they have.
    hands: BTreeMap<String, Vec<String>>,
    given: HashMap<String, BTreeSet<u32>>,
}

impl Fleet {
    fn new() -> Self {
        let mut s = Scheduler::new(Policy::default());
        for id in MACHINES {
            s.attach_worker(machine(id), 0.0);
        }
        for spec in specs() {
            s.set_pool(spec, 0.0);
        }
        Self { s, now: 1.0, calls: Vec::new(), hands: BTreeMap::new(), given: HashMap::new() }
    }

    fn live(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.s.live_tasks().map(|task| task.id.clone()).collect();
        ids.sort();
        ids
    }

    fn nth(&self, n: usize) -> Option<String> {
        let live = self.live();
        (!live.is_empty()).then(|| live[n % live.len()].clone())
    }

    /// The container asks, as its client does: as long as it has a free slot.
    fn take(&mut self, task: &str) -> Result<(), TestCaseError> {
        let spec = &self.s.pool(&self.s.task(task).unwrap().pool_id).unwrap().spec;
        let (most, slots) = (spec.batch_size as usize, (spec.most_concurrency * spec.batch_size) as usize);
        if self.hands.get(task).map_or(0, Vec::len) >= slots {
            return Ok(());
        }
        match self.s.take_batch(task, most, 0.5, None, self.now) {
            Take::Inputs(items) => {
                prop_assert!(!items.is_empty() && items.len() <= most);
                for item in items {
                    let attempts = self.given.entry(item.input_id.clone()).or_default();
                    prop_assert!(
                        attempts.insert(item.retry_count),
                        "{} ran twice in one attempt",
                        item.input_id
                    );
                    self.hands.entry(task.to_owned()).or_default().push(item.input_id);
                }
            }
            Take::Stop if self.hands.get(task).is_none_or(Vec::is_empty) => {
                self.s.task_ended(task, exited(0), self.now);
                self.hands.remove(task);
            }
            Take::Stop | Take::Wait { .. } => {}
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), TestCaseError> {
        match event {
            Event::Put { pool, count } => {
                let call = format!("fc-{}", self.calls.len());
                put(&mut self.s, POOLS[pool], &call, count, self.now);
                self.calls.push(call);
            }
            Event::Take { task } => {
                if let Some(task) = self.nth(task) {
                    self.take(&task)?;
                }
            }
            Event::Finish { task, well } => {
                if let Some(task) = self.nth(task)
                    && let Some(input) = self.hands.get_mut(&task).and_then(Vec::pop)
                {
                    let output = if well { success(&input) } else { failed(&input) };
                    self.s.put_outputs(&task, vec![output], self.now);
                }
            }
            Event::Die { task, code } => {
                if let Some(task) = self.nth(task) {
                    self.hands.remove(&task);
                    self.s.task_ended(&task, exited(code), self.now);
                }
            }
            Event::Lose { machine } => self.s.detach_worker(MACHINES[machine], self.now),
            Event::Attach { machine: n } => self.s.attach_worker(machine(MACHINES[n]), self.now),
            Event::Cancel { call } => {
                if let Some(call) = self.calls.get(call) {
                    self.s.cancel_call(call, false, self.now);
                }
            }
            Event::Renew { pool } => {
                self.s.renew(POOLS[pool], self.now);
                self.s.set_pool(specs()[pool].clone(), self.now);
            }
            Event::Pass { seconds } => {
                self.now += seconds;
                self.s.tick(self.now);
            }
        }
        self.obey_kills();
        let live: BTreeSet<String> = self.live().into_iter().collect();
        self.hands.retain(|task, _| live.contains(task));
        self.check()
    }

    /// Containers that are killed are gone.
    fn obey_kills(&mut self) {
        for effect in self.s.take_effects() {
            if let Effect::Signal { task_id, signal: StopSignal::Kill, .. } = effect {
                let ending = Ending { outcome: Outcome::Signal(9), ..Default::default() };
                self.hands.remove(&task_id);
                self.s.task_ended(&task_id, ending, self.now);
            }
        }
    }

    /// What must hold at any moment.
    fn check(&self) -> Result<(), TestCaseError> {
        let s = &self.s;
        for (id, machine) in &s.machines {
            let here: Vec<&Task> = machine.tasks.iter().map(|task| &s.tasks[task]).collect();
            prop_assert!(here.iter().all(|task| task.phase != TaskPhase::Ended && task.worker_id == *id));
            prop_assert!(here.iter().map(|task| task.milli_cpu).sum::<u32>() <= machine.node.milli_cpu);
            prop_assert!(here.iter().map(|task| task.memory_bytes).sum::<u64>() <= machine.node.memory_bytes);
            let starting = here.iter().filter(|task| task.phase == TaskPhase::Starting).count();
            prop_assert_eq!(starting, machine.starting);
            let devices: Vec<&String> = here.iter().flat_map(|task| &task.devices).collect();
            prop_assert_eq!(
                devices.iter().collect::<BTreeSet<_>>().len(),
                devices.len(),
                "a GPU was given twice"
            );
        }
        for pool in s.pools.values() {
            let live: BTreeSet<String> = s
                .live_tasks()
                .filter(|task| task.pool_id == pool.spec.function_id)
                .map(|task| task.id.clone())
                .collect();
            prop_assert_eq!(&live, &pool.tasks);
            let current = live.iter().filter(|id| !s.tasks[*id].outdated).count();
            prop_assert!(current <= pool.spec.most(), "{} has {} containers", pool.spec.name, current);
        }
        // Every input without output is in exactly one place.
        let mut places: HashMap<&str, usize> = HashMap::new();
        let queued = s.pools.values().flat_map(|pool| &pool.queue);
        let delayed = s.pools.values().flat_map(|pool| pool.delayed.iter().map(|(_, id)| id));
        let held = s.live_tasks().flat_map(|task| &task.inputs);
        for id in queued.chain(delayed).chain(held) {
            *places.entry(id).or_default() += 1;
        }
        for input in s.inputs.values() {
            let expected = usize::from(!matches!(input.progress, Progress::Done { .. }));
            let found = places.get(input.id.as_str()).copied().unwrap_or_default();
            prop_assert_eq!(found, expected, "{} is {:?}", &input.id, &input.progress);
        }
        Ok(())
    }

    /// From here on containers do their work, and the passing of time does the rest.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for id in MACHINES {
            self.s.attach_worker(machine(id), self.now);
        }
        for _ in 0..600 {
            self.now += 0.5;
            self.s.tick(self.now);
            self.obey_kills();
            for task in self.live() {
                for input in self.hands.remove(&task).unwrap_or_default() {
                    self.s.put_outputs(&task, vec![success(&input)], self.now);
                }
                if self.s.task(&task).is_some_and(|task| task.phase != TaskPhase::Ended) {
                    self.take(&task)?;
                }
            }
            self.check()?;
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever happens: no machine carries more than it has, no limit is exceeded, no input is lost
    /// or with two containers, and in the end every queue is empty and every input has one output.
    #[test]
    fn a_fleet_loses_nothing(events in proptest::collection::vec(event(), 1..120)) {
        let mut fleet = Fleet::new();
        for event in events {
            fleet.happen(event)?;
        }
        fleet.settle()?;
        for call in &fleet.calls {
            let call = fleet.s.call(call).unwrap();
            let mut seen: Vec<i32> = call.page(0, usize::MAX, None).outputs.iter().map(|output| output.idx).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..call.input_count() as i32).collect::<Vec<_>>());
        }
        let left: Vec<&str> = fleet.s.live_tasks().map(|task| task.pool_id.as_str()).collect();
        prop_assert!(left.is_empty(), "nothing to do, and still there: {:?}", left);
    }
}
