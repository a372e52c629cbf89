//! Reports on their way to control.
//!
//! One bounded queue for everything that tasks and steps have to say, in order. When control doesn't keep up, the queue
//! fills and the reporters wait, and with them the containers whose output they carry.

use homeport_proto::worker::Report;
use homeport_proto::worker::report::Report as Kind;
use tokio::sync::mpsc;

/// Reports that may wait for control; an output report holds up to 64 KiB.
const QUEUE: usize = 256;

/// The reporters' end of the queue.
#[derive(Debug, Clone)]
pub(crate) struct Reports {
    queue: mpsc::Sender<Report>,
}

/// The link's end of the queue.
pub(crate) type Outbox = mpsc::Receiver<Report>;

pub(crate) fn channel() -> (Reports, Outbox) {
    let (queue, outbox) = mpsc::channel(QUEUE);
    (Reports { queue }, outbox)
}

impl Reports {
    /// Queues a report, waiting for room. After the link has ended for good it does nothing.
    pub(crate) async fn send(&self, report: Kind) {
        // The only failure is that the link is gone, which happens at shutdown: nobody is left to tell.
        let _ = self.queue.send(Report { report: Some(report) }).await;
    }
}
