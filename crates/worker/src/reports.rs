//! Reports on their way to control.
//!
//! One bounded queue for everything that tasks and steps have to say, in order. When control doesn't keep up, or is
//! away, the queue fills and the reporters wait, and with them the containers whose output they carry.
//!
//! A stream that breaks may take reports with it that were sent but not received. What ended is therefore remembered
//! for a while and said again on the next stream; control takes the first and ignores the rest, as all is named by id.
//! Output that was on its way when a stream broke is not said again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use homeport_proto::worker::report::Report as Kind;
use homeport_proto::worker::Report;
use tokio::sync::mpsc;

/// Reports that may wait for control; an output report holds up to 64 KiB.
const QUEUE: usize = 256;
/// How many ends are remembered.
const REMEMBERED: usize = 512;

/// The reporters' end of the queue.
#[derive(Debug, Clone)]
pub(crate) struct Reports {
    queue: mpsc::Sender<Report>,
    ended: Arc<Mutex<VecDeque<Report>>>,
}

/// The link's end of the queue.
#[derive(Debug)]
pub(crate) struct Outbox {
    pub(crate) queue: mpsc::Receiver<Report>,
    ended: Arc<Mutex<VecDeque<Report>>>,
}

pub(crate) fn channel() -> (Reports, Outbox) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let ended = Arc::default();
    (Reports { queue: sender, ended: Arc::clone(&ended) }, Outbox { queue: receiver, ended })
}

impl Reports {
    /// Queues a report, waiting for room. After the link has ended for good it does nothing.
    pub(crate) async fn send(&self, report: Kind) {
        // The only failure is that the link is gone, which happens at shutdown: nobody is left to tell.
        let _ = self.queue.send(Report { report: Some(report) }).await;
    }

    /// Says again how `id` ended. False when it isn't known (any more).
    pub(crate) async fn repeat_end(&self, id: &str) -> bool {
        let known = lock(&self.ended).iter().find(|report| ended_id(report) == Some(id)).cloned();
        let Some(report) = known else { return false };
        let _ = self.queue.send(report).await;
        true
    }
}

impl Outbox {
    /// Remembers `report` if it says that something ended. To be called when it is handed to a stream.
    pub(crate) fn remember(&self, report: &Report) {
        if ended_id(report).is_none() {
            return;
        }
        let mut ended = lock(&self.ended);
        ended.retain(|known| ended_id(known) != ended_id(report));
        while ended.len() >= REMEMBERED {
            ended.pop_front();
        }
        ended.push_back(report.clone());
    }

    /// All remembered ends, oldest first.
    pub(crate) fn remembered(&self) -> VecDeque<Report> {
        lock(&self.ended).clone()
    }
}

fn ended_id(report: &Report) -> Option<&str> {
    match report.report.as_ref()? {
        Kind::TaskEnded(ended) => Some(&ended.task_id),
        Kind::StepEnded(ended) => Some(&ended.step_id),
        _ => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
