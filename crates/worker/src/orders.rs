//! What runs now, by id, and how control's orders reach it.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use homeport_proto::worker::order::Order as Kind;
use homeport_proto::worker::report::Report;
use homeport_proto::worker::step_ended;
use homeport_proto::worker::task_ended;
use homeport_proto::worker::{
    CancelStep, Order, RunStep, Signal, SignalTask, StartTask, StepEnded, StepFailure, TaskEnded, VolumeKept,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::link::Orders;
use crate::node::Node;
use crate::{step, task};

/// Time for everything to end after it was killed.
const ENDING: Duration = Duration::from_secs(30);

/// The signals that control has sent to a task or step so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Signals {
    /// How often it was interrupted.
    pub(crate) interrupts: u32,
    pub(crate) kill: bool,
}

/// Running tasks and steps.
#[derive(Debug)]
pub(crate) struct Running {
    node: Arc<Node>,
    tasks: Mutex<HashMap<String, watch::Sender<Signals>>>,
    steps: Mutex<HashMap<String, watch::Sender<Signals>>>,
    tracker: TaskTracker,
    closed: CancellationToken,
}

impl Running {
    pub(crate) fn new(node: Arc<Node>) -> Arc<Self> {
        Arc::new(Self {
            node,
            tasks: Mutex::default(),
            steps: Mutex::default(),
            tracker: TaskTracker::new(),
            closed: CancellationToken::new(),
        })
    }

    /// Kills everything that runs.
    pub(crate) fn kill_all(&self) {
        for task in lock(&self.tasks).values() {
            task.send_modify(|signals| signals.kill = true);
        }
        for step in lock(&self.steps).values() {
            step.send_modify(|signals| signals.kill = true);
        }
    }

    /// Refuses orders from now on, for good.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// Waits until nothing runs and everything is taken down, but not for ever: a process that even a kill doesn't end is
    /// left to the runtime's recovery. No order may come in the meantime.
    pub(crate) async fn ended(&self) {
        self.tracker.close();
        if tokio::time::timeout(ENDING, self.tracker.wait()).await.is_err() {
            tracing::error!(after = ?ENDING, "not everything that runs did end; it is left to the next recovery");
        }
        self.tracker.reopen();
    }

    fn start_task(self: &Arc<Self>, order: StartTask) {
        let id = order.task_id.clone();
        let mut tasks = lock(&self.tasks);
        if tasks.contains_key(&id) {
            return;
        }
        let (sender, signals) = watch::channel(Signals::default());
        tasks.insert(id.clone(), sender);
        drop(tasks);
        let running = Arc::clone(self);
        self.tracker.spawn(async move {
            let work = AssertUnwindSafe(task::carry_out(&running.node, order, signals, &running.closed))
                .catch_unwind();
            let ended = Box::pin(work).await.unwrap_or_else(|_| TaskEnded {
                end: Some(task_ended::End::StartError(bug())),
                ..TaskEnded::default()
            });
            running.node.reports.send(Report::TaskEnded(TaskEnded { task_id: id.clone(), ..ended })).await;
            lock(&running.tasks).remove(&id);
        });
    }

    fn run_step(self: &Arc<Self>, order: RunStep) {
        let id = order.step_id.clone();
        let mut steps = lock(&self.steps);
        if steps.contains_key(&id) {
            return;
        }
        let (sender, signals) = watch::channel(Signals::default());
        steps.insert(id.clone(), sender);
        drop(steps);
        let running = Arc::clone(self);
        self.tracker.spawn(async move {
            let work = AssertUnwindSafe(step::carry_out(&running.node, order, signals)).catch_unwind();
            let end = Box::pin(work).await.unwrap_or_else(|_| {
                step_ended::End::Failure(StepFailure { message: bug(), ..StepFailure::default() })
            });
            let ended = StepEnded { step_id: id.clone(), end: Some(end) };
            running.node.reports.send(Report::StepEnded(ended)).await;
            lock(&running.steps).remove(&id);
        });
    }

    fn signal_task(&self, order: &SignalTask) {
        let tasks = lock(&self.tasks);
        // A task that has ended already is no error: its end is on the way to control.
        let Some(task) = tasks.get(&order.task_id) else {
            return;
        };
        match order.signal() {
            Signal::Interrupt => task.send_modify(|signals| signals.interrupts += 1),
            Signal::Kill => task.send_modify(|signals| signals.kill = true),
            Signal::Unspecified => {
                tracing::warn!(task = order.task_id, signal = order.signal, "unknown signal");
            }
        }
    }

    fn volume_kept(&self, order: VolumeKept) {
        self.spawn(|node| async move { node.volumes.kept(&order).await });
    }

    /// Does something beside the orders that run.
    fn spawn<Work: Future<Output = ()> + Send + 'static>(&self, work: impl FnOnce(Arc<Node>) -> Work) {
        self.tracker.spawn(work(Arc::clone(&self.node)));
    }

    fn cancel_step(&self, order: &CancelStep) {
        if let Some(step) = lock(&self.steps).get(&order.step_id) {
            step.send_modify(|signals| signals.kill = true);
        }
    }
}

impl Orders for Arc<Running> {
    fn attached(&self) {
        self.node.volumes.set_attached(true);
    }

    fn order(&self, order: Order) {
        if self.closed.is_cancelled() {
            // Those that end wait for this.
            if let Some(Kind::VolumeKept(order)) = order.order {
                self.volume_kept(order);
            }
            return;
        }
        match order.order {
            Some(Kind::StartTask(order)) => self.start_task(order),
            Some(Kind::SignalTask(order)) => self.signal_task(&order),
            Some(Kind::RunStep(order)) => self.run_step(order),
            Some(Kind::CancelStep(order)) => self.cancel_step(&order),
            Some(Kind::TakeVolume(order)) => {
                self.spawn(|node| async move { node.volumes.take(&node.reports, order).await });
            }
            Some(Kind::ShowVolume(order)) => {
                self.spawn(|node| async move { node.volumes.show(&node.reports, order).await });
            }
            Some(Kind::VolumeKept(order)) => self.volume_kept(order),
            None => tracing::warn!("control sent an order that this worker doesn't know; it may be newer"),
        }
    }

    async fn stream_lost(&self) {
        self.node.volumes.set_attached(false);
        self.kill_all();
        self.ended().await;
    }
}

fn bug() -> String {
    "the worker failed while it carried this out; its log says where".to_owned()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
