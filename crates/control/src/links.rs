//! The links to workers: orders down, reports up, and those who wait for a build step.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use homeport_proto::worker as wp;
use tokio::sync::{mpsc, oneshot};

/// Orders that may wait for a worker that reads slowly.
pub(crate) const ORDERS: usize = 1024;

/// Why a step has no result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StepError {
    /// It ran and failed.
    #[error("{message}")]
    Failed {
        /// What happened.
        message: String,
        /// The exit code of the command, if one ran.
        exit_code: Option<i32>,
        /// The registry of a base image could not be reached.
        unreachable: bool,
    },
    /// There is nobody to run it.
    #[error("no worker is connected; start one, or see `homeport doctor`")]
    NoWorker,
    /// The worker went away.
    #[error("the worker went away during the step; run it again")]
    Lost,
}

#[derive(Debug)]
struct Waiter {
    worker_id: String,
    /// The log that gets the step's output.
    log_id: Option<String>,
    done: oneshot::Sender<wp::StepEnded>,
}

/// All links.
#[derive(Debug, Default)]
pub struct Links {
    workers: Mutex<HashMap<String, mpsc::Sender<wp::Order>>>,
    steps: Mutex<HashMap<String, Waiter>>,
}

impl Links {
    /// A worker attached; its orders go to `orders`. True when it takes the place of a link whose
    /// end was not noticed yet: what ran over that one has ended.
    pub(crate) fn attach(&self, worker_id: &str, orders: mpsc::Sender<wp::Order>) -> bool {
        let replaced = lock(&self.workers).insert(worker_id.to_owned(), orders).is_some();
        if replaced {
            lock(&self.steps).retain(|_, waiter| waiter.worker_id != worker_id);
        }
        replaced
    }

    /// A worker has gone: its steps fail. False when a newer link of the same worker is there.
    pub(crate) fn detach(&self, worker_id: &str, orders: &mpsc::Sender<wp::Order>) -> bool {
        let mut workers = lock(&self.workers);
        if !workers.get(worker_id).is_some_and(|current| current.same_channel(orders)) {
            return false;
        }
        workers.remove(worker_id);
        lock(&self.steps).retain(|_, waiter| waiter.worker_id != worker_id);
        true
    }

    /// Sends an order. False when the worker is gone or stuck.
    pub(crate) fn send(&self, worker_id: &str, order: wp::order::Order) -> bool {
        let sender = lock(&self.workers).get(worker_id).cloned();
        sender.is_some_and(|sender| sender.try_send(wp::Order { order: Some(order) }).is_ok())
    }

    /// Signals a container.
    pub(crate) fn signal(&self, worker_id: &str, task_id: &str, signal: wp::Signal) {
        let order = wp::SignalTask { task_id: task_id.to_owned(), signal: signal.into() };
        self.send(worker_id, wp::order::Order::SignalTask(order));
    }

    /// Runs a step on a worker and waits for its end. Its output goes to the log `log_id`. A caller
    /// that stops waiting cancels the step.
    pub(crate) async fn run_step(
        &self,
        step_id: &str,
        step: wp::run_step::Step,
        log_id: Option<String>,
    ) -> Result<wp::StepResult, StepError> {
        let worker_id = lock(&self.workers).keys().min().cloned().ok_or(StepError::NoWorker)?;
        let (done, ended) = oneshot::channel();
        lock(&self.steps).insert(step_id.to_owned(), Waiter { worker_id: worker_id.clone(), log_id, done });
        let mut guard = StepGuard { links: self, worker_id: &worker_id, step_id, over: false };
        let order = wp::RunStep { step_id: step_id.to_owned(), step: Some(step) };
        if !self.send(&worker_id, wp::order::Order::RunStep(order)) {
            return Err(StepError::Lost);
        }
        let ended = ended.await;
        guard.over = true;
        match ended.map_err(|_| StepError::Lost)?.end {
            Some(wp::step_ended::End::Result(result)) => Ok(result),
            Some(wp::step_ended::End::Failure(failure)) => {
                let wp::StepFailure { message, exit_code, unreachable } = failure;
                Err(StepError::Failed { message, exit_code, unreachable })
            }
            None => Err(StepError::Lost),
        }
    }

    /// The log that gets the output of a step.
    pub(crate) fn step_log(&self, step_id: &str) -> Option<String> {
        lock(&self.steps).get(step_id).and_then(|waiter| waiter.log_id.clone())
    }

    /// A step has ended.
    pub(crate) fn finish_step(&self, ended: wp::StepEnded) {
        if let Some(waiter) = lock(&self.steps).remove(&ended.step_id) {
            // Nobody waits any more when the build was given up.
            let _ = waiter.done.send(ended);
        }
    }
}

struct StepGuard<'a> {
    links: &'a Links,
    worker_id: &'a str,
    step_id: &'a str,
    over: bool,
}

impl Drop for StepGuard<'_> {
    fn drop(&mut self) {
        lock(&self.links.steps).remove(self.step_id);
        if !self.over {
            let order = wp::CancelStep { step_id: self.step_id.to_owned() };
            self.links.send(self.worker_id, wp::order::Order::CancelStep(order));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one call on a map, so a panic elsewhere leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_that_comes_back_unnoticed_loses_the_steps_of_its_old_link() {
        let links = Links::default();
        let (old, mut orders) = mpsc::channel(ORDERS);
        assert!(!links.attach("worker", old.clone()));
        let (new, _kept) = mpsc::channel(ORDERS);
        let step = links.run_step("bs-1", wp::run_step::Step::PullBase(wp::PullBase::default()), None);
        let back = async {
            orders.recv().await.unwrap();
            assert!(links.attach("worker", new.clone()));
        };
        let (ended, ()) = tokio::join!(step, back);
        assert!(matches!(ended, Err(StepError::Lost)), "{ended:?}");
        assert!(!links.detach("worker", &old), "the end of the old link must not end the new one");
        assert!(links.detach("worker", &new));
    }
}
