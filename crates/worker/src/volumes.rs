//! Volumes in containers: mounting them, taking what containers change, showing them other versions.
//!
//! What was taken is owed to control until control says that it is in the history. A debt outlives its container, the
//! stream to control and this process: the layer stays on disk beside a note that says what is owed, and a restarted
//! worker takes up both.
//!
//! ```text
//! mounted   the Volumes of one task, from its start to its end
//! volume    one Volume of one task: taking, showing, what is owed
//! note      what lies beside a layer on disk, for a later process
//! left      layers that an earlier process left
//! inside    a running container, as the file system wants to see it
//! sync      the program `sync` in containers
//! stacks    names of layers, on the wire and here
//! ```
//!
//! Invariants:
//! - Deltas of one Volume and task reach control in the order in which they were taken.
//! - A delta is reported only after the note beside its layer names it: its sequence is never given to another one.
//! - A layer is removed from disk only when its container has ended and nothing of it is owed.

mod inside;
mod left;
mod mounted;
mod note;
mod stacks;
mod sync;
mod volume;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use homeport_proto::worker::report::Report;
use homeport_proto::worker::volume_shown::Outcome;
use homeport_proto::worker::{ShowVolume, TakeReason, TakeVolume, VolumeKept, VolumeShown, VolumeTaken};
use tokio::sync::watch;

use crate::reports::Reports;

pub(crate) use left::take_up;
pub(crate) use mounted::{MountedVolumes, OpenError, clear_staging};
use sync::SyncWatch;
use volume::Volume;

/// How long a report may be without an answer before it is repeated.
const REPEAT: Duration = Duration::from_secs(5);

/// Volumes of ended containers that are taken at the same time.
const CONCURRENT: usize = 4;

/// The task and the Volume.
type Key = (String, String);

/// Volumes of which a layer is on disk, by task and Volume.
#[derive(Debug)]
pub(crate) struct Volumes {
    known: Mutex<BTreeMap<Key, Arc<Volume>>>,
    /// Whether there is a stream to control.
    attached: watch::Sender<bool>,
    sync: Arc<SyncWatch>,
}

impl Default for Volumes {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            attached: watch::Sender::new(false),
            sync: Arc::new(SyncWatch::new()),
        }
    }
}

impl Volumes {
    fn add(&self, volume: &Arc<Volume>) {
        self.known().insert(volume.key(), Arc::clone(volume));
    }

    fn find(&self, task_id: &str, volume_id: &str) -> Option<Arc<Volume>> {
        self.known().get(&(task_id.to_owned(), volume_id.to_owned())).cloned()
    }

    /// The stream to control is there, or gone.
    pub(crate) fn set_attached(&self, attached: bool) {
        self.attached.send_replace(attached);
    }

    /// Says what is owed again and again while there is a stream, from the moment on that there is one.
    pub(crate) async fn repeat(&self, reports: &Reports) {
        let mut attached = self.attached.subscribe();
        loop {
            if attached.wait_for(|attached| *attached).await.is_err() {
                return;
            }
            let known: Vec<Arc<Volume>> = self.known().values().cloned().collect();
            let said = known.into_iter().map(async |volume| {
                volume.say_what_is_owed(reports).await;
                self.give_up(&volume).await;
            });
            futures::stream::iter(said).buffer_unordered(CONCURRENT).collect::<()>().await;
            tokio::time::sleep(REPEAT).await;
        }
    }

    /// Hears of the program `sync` in containers.
    pub(crate) async fn hear_sync(&self, reports: &Reports) {
        self.sync.answer(reports).await;
    }

    /// Answers an order to take.
    pub(crate) async fn take(&self, reports: &Reports, order: TakeVolume) {
        match self.find(&order.task_id, &order.volume_id) {
            Some(volume) => {
                volume.take(reports, TakeReason::Asked, &order.op_id).await;
            }
            None => {
                let taken = VolumeTaken {
                    error: not_here(&order.task_id),
                    op_id: order.op_id,
                    task_id: order.task_id,
                    volume_id: order.volume_id,
                    reason: TakeReason::Asked.into(),
                    ..VolumeTaken::default()
                };
                reports.send(Report::VolumeTaken(taken)).await;
            }
        }
    }

    /// Answers an order to show another version.
    pub(crate) async fn show(&self, reports: &Reports, order: ShowVolume) {
        let outcome = match self.find(&order.task_id, &order.volume_id) {
            Some(volume) => volume.show(&order).await,
            None => Outcome::Error(not_here(&order.task_id)),
        };
        let ShowVolume { op_id, task_id, volume_id, .. } = order;
        let shown = VolumeShown { op_id, task_id, volume_id, outcome: Some(outcome) };
        reports.send(Report::VolumeShown(shown)).await;
    }

    /// Control has a delta in its history.
    pub(crate) async fn kept(&self, order: &VolumeKept) {
        // One that isn't known was settled before: control repeats its answer as the worker repeats its report.
        if let Some(volume) = self.find(&order.task_id, &order.volume_id) {
            volume.kept(order.sequence).await;
            self.give_up(&volume).await;
        }
    }

    /// Removes the layer of a Volume of which the container has ended and nothing is owed.
    async fn give_up(&self, volume: &Arc<Volume>) {
        if volume.give_up().await {
            self.remove(volume);
        }
    }

    fn remove(&self, volume: &Volume) {
        self.known().remove(&volume.key());
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Volume>>> {
        lock(&self.known)
    }
}

fn not_here(task_id: &str) -> String {
    format!("the container {task_id} is not running on this worker any more")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one assignment or one call on a collection, so a panic elsewhere leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
