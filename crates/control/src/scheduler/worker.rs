//! Workers and what is free on them.

use std::collections::BTreeSet;

use super::pool::{GpuDemand, PoolSpec};
use super::{Ending, Outcome, Scheduler, Task};
use crate::clock::Seconds;

/// A GPU of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// CDI device name.
    pub device: String,
    /// Model in upper case, empty if unknown.
    pub model: String,
}

/// A worker.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// Thousandths of a core.
    pub milli_cpu: u32,
    /// Bytes.
    pub memory_bytes: u64,
    /// Its GPUs.
    pub gpus: Vec<Gpu>,
}

impl Node {
    /// Whether the worker, all of it free, has these GPUs.
    pub(super) fn could_provide(&self, demand: &GpuDemand) -> bool {
        self.matching(demand).count() >= demand.count as usize
    }

    pub(super) fn matching<'a>(&'a self, demand: &'a GpuDemand) -> impl Iterator<Item = &'a Gpu> {
        self.gpus.iter().filter(|gpu| {
            demand
                .model
                .as_ref()
                .is_none_or(|model| gpu.model == *model || gpu.model.starts_with(&format!("{model}-")))
        })
    }
}

/// A worker with the containers on it.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) node: Node,
    /// Those that have not ended.
    pub(super) tasks: BTreeSet<String>,
    /// Those of them that are on their way up.
    pub(super) starting: usize,
    milli_cpu: u32,
    memory_bytes: u64,
    devices: BTreeSet<String>,
}

impl Machine {
    fn new(node: Node) -> Self {
        Self {
            node,
            tasks: BTreeSet::new(),
            starting: 0,
            milli_cpu: 0,
            memory_bytes: 0,
            devices: BTreeSet::new(),
        }
    }

    pub(super) fn admit(&mut self, task: &Task) {
        if self.tasks.insert(task.id.clone()) {
            self.starting += 1;
            self.milli_cpu += task.milli_cpu;
            self.memory_bytes += task.memory_bytes;
            self.devices.extend(task.devices.iter().cloned());
        }
    }

    pub(super) fn started(&mut self) {
        self.starting = self.starting.saturating_sub(1);
    }

    pub(super) fn discharge(&mut self, task: &Task, was_starting: bool) {
        if self.tasks.remove(&task.id) {
            self.starting -= usize::from(was_starting && self.starting > 0);
            self.milli_cpu = self.milli_cpu.saturating_sub(task.milli_cpu);
            self.memory_bytes = self.memory_bytes.saturating_sub(task.memory_bytes);
            for device in &task.devices {
                self.devices.remove(device);
            }
        }
    }

    /// Whether cores and memory are free for the demand.
    pub(super) fn has_room(&self, spec: &PoolSpec) -> bool {
        self.milli_cpu.saturating_add(spec.milli_cpu) <= self.node.milli_cpu
            && self.memory_bytes.saturating_add(spec.memory_bytes) <= self.node.memory_bytes
    }

    /// GPUs that are free for the demand; none if they are too few.
    pub(super) fn free_devices(&self, demand: &GpuDemand) -> Option<Vec<String>> {
        let free = self.node.matching(demand).filter(|gpu| !self.devices.contains(&gpu.device));
        let devices: Vec<String> = free.take(demand.count as usize).map(|gpu| gpu.device.clone()).collect();
        (devices.len() == demand.count as usize).then_some(devices)
    }
}

impl Scheduler {
    /// A worker is there (again) with these resources.
    pub fn attach_worker(&mut self, node: Node, now: Seconds) {
        match self.machines.get_mut(&node.id) {
            Some(machine) => machine.node = node,
            None => {
                self.machines.insert(node.id.clone(), Machine::new(node));
            }
        }
        self.scale(now);
    }

    /// Bytes of memory of a worker; 0 if it is gone.
    pub fn node_memory(&self, worker_id: &str) -> u64 {
        self.machines.get(worker_id).map_or(0, |machine| machine.node.memory_bytes)
    }

    /// A worker has gone, and its containers with it.
    pub fn detach_worker(&mut self, worker_id: &str, now: Seconds) {
        let Some(machine) = self.machines.remove(worker_id) else { return };
        for task_id in machine.tasks {
            let outcome = Outcome::Lost(format!("The connection to worker {worker_id} broke."));
            self.task_ended(&task_id, Ending { outcome, ..Default::default() }, now);
        }
    }
}
