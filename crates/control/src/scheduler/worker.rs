//! Workers and what is free on them.

use super::pool::GpuDemand;
use super::{Ending, Outcome, Scheduler};
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

impl Scheduler {
    /// A worker is there (again) with these resources.
    pub fn attach_worker(&mut self, node: Node, now: Seconds) {
        self.nodes.insert(node.id.clone(), node);
        self.scale(now);
    }

    /// Bytes of memory of a worker; 0 if it is gone.
    pub fn node_memory(&self, worker_id: &str) -> u64 {
        self.nodes.get(worker_id).map_or(0, |node| node.memory_bytes)
    }

    /// A worker has gone, and its containers with it.
    pub fn detach_worker(&mut self, worker_id: &str, now: Seconds) {
        self.nodes.remove(worker_id);
        let tasks: Vec<String> = self
            .live_tasks()
            .filter(|task| task.worker_id == worker_id)
            .map(|task| task.id.clone())
            .collect();
        for task_id in tasks {
            let outcome = Outcome::Lost(format!("The connection to worker {worker_id} broke."));
            self.task_ended(&task_id, Ending { outcome, ..Default::default() }, now);
        }
    }
}
