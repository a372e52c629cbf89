//! Who has Volumes mounted, and who waits for what a worker says of them.
//!
//! Reports on one task are carried out in the order in which they came, beside all others: what a container changed
//! is in the history before its end is known.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use homeport_content::Stack;
use homeport_proto::worker as wp;
use homeport_store::{Pin, Root, Store};
use tokio::sync::{mpsc, oneshot};

use super::commits::CommitError;
use crate::clock::Seconds;

/// Versions that a container saw of which the layers are kept for files that it may still have open.
const REMEMBERED: usize = 256;
/// Seconds after which nothing is expected any more of a container whose worker is gone.
const LOST: Seconds = 3600.0;

/// The task and the Volume.
type Key = (String, String);

/// All mounted Volumes.
#[derive(Default)]
pub(super) struct Containers {
    mounts: Mutex<HashMap<Key, Arc<Mounted>>>,
    takes: Mutex<HashMap<String, Waiter<Result<Settled, CommitError>>>>,
    shows: Mutex<HashMap<String, Waiter<wp::volume_shown::Outcome>>>,
    queues: Mutex<HashMap<String, mpsc::UnboundedSender<Heard>>>,
}

/// A Volume in a container.
pub(super) struct Mounted {
    pub(super) task_id: String,
    pub(super) volume_id: String,
    pub(super) worker_id: String,
    /// For people.
    pub(super) name: String,
    pub(super) function_name: String,
    pub(super) app_id: String,
    /// The log that hears of it.
    pub(super) log_id: String,
    /// Held while the container commits or reloads: one after the other.
    pub(super) turn: tokio::sync::Mutex<()>,
    view: Mutex<View>,
}

/// What a container sees.
#[derive(Default)]
struct View {
    /// The version that was shown last.
    shown: u64,
    /// The version that is what it sees, with its own changes.
    current: u64,
    /// Deltas of the layers that it sees.
    depth: usize,
    /// Layers that it sees, or saw and may still have files of.
    pins: Vec<Pin>,
    /// Why what it changed last is not in the history.
    owed: Option<String>,
    /// When its worker was found to be gone.
    lost_since: Option<Seconds>,
}

/// What became of a take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settled {
    /// Another version can be shown.
    pub(super) clean: bool,
}

/// What a worker said of a task.
pub(super) enum Heard {
    Taken(String, wp::VolumeTaken),
    Ended(wp::TaskEnded),
}

struct Waiter<T> {
    worker_id: String,
    done: oneshot::Sender<T>,
}

impl Mounted {
    pub(super) fn new(
        (task_id, volume_id, worker_id): (&str, &str, &str),
        name: String,
        function_name: &str,
        app_id: &str,
        log_id: &str,
    ) -> Self {
        Self {
            task_id: task_id.to_owned(),
            volume_id: volume_id.to_owned(),
            worker_id: worker_id.to_owned(),
            name,
            function_name: function_name.to_owned(),
            app_id: app_id.to_owned(),
            log_id: log_id.to_owned(),
            turn: tokio::sync::Mutex::default(),
            view: Mutex::default(),
        }
    }

    /// The container may see these layers from now on.
    pub(super) fn pin(&self, store: &Store, stack: &Stack) {
        let pin = store.pin(Root::of_stack(stack));
        let mut view = lock(&self.view);
        view.depth = stack.deltas.len();
        view.pins.push(pin);
        if view.pins.len() > REMEMBERED {
            view.pins.remove(0);
        }
    }

    /// The container sees this version.
    pub(super) fn shows(&self, version: u64) {
        let mut view = lock(&self.view);
        (view.shown, view.current) = (version, version);
    }

    /// What it changed is in the history. With `version` it sees what that version has.
    pub(super) fn committed(&self, version: Option<u64>) {
        let mut view = lock(&self.view);
        view.owed = None;
        view.current = version.unwrap_or(view.current);
    }

    /// What it changed could not be brought into the history. True if that is news.
    pub(super) fn owes(&self, why: &str) -> bool {
        lock(&self.view).owed.replace(why.to_owned()).as_deref() != Some(why)
    }

    pub(super) fn owed(&self) -> Option<String> {
        lock(&self.view).owed.clone()
    }

    /// Whether it sees the version, through no more layers than it should.
    pub(super) fn sees(&self, version: u64, deepest: usize) -> bool {
        let view = lock(&self.view);
        view.current == version && view.depth <= deepest
    }
}

impl Containers {
    pub(super) fn mount(&self, mounted: Mounted) -> Arc<Mounted> {
        let mounted = Arc::new(mounted);
        let key = (mounted.task_id.clone(), mounted.volume_id.clone());
        lock(&self.mounts).insert(key, Arc::clone(&mounted));
        mounted
    }

    pub(super) fn find(&self, task_id: &str, volume_id: &str) -> Option<Arc<Mounted>> {
        lock(&self.mounts).get(&(task_id.to_owned(), volume_id.to_owned())).cloned()
    }

    /// The container of a task has gone.
    pub(super) fn unmount(&self, task_id: &str) {
        lock(&self.mounts).retain(|(task, _), _| task != task_id);
    }

    /// How many containers have a Volume mounted.
    pub(super) fn mounts_of(&self, volume_id: &str) -> usize {
        lock(&self.mounts).keys().filter(|(_, volume)| volume == volume_id).count()
    }

    pub(super) fn is_mounted(&self, task_id: &str, volume_id: &str) -> bool {
        self.find(task_id, volume_id).is_some()
    }

    /// The versions that were shown last to those who have a Volume mounted, with their tasks.
    pub(super) fn seen(&self, volume_id: &str) -> Vec<(String, u64)> {
        let mounts = lock(&self.mounts);
        let of_volume = mounts.values().filter(|mounted| mounted.volume_id == volume_id);
        of_volume.map(|mounted| (mounted.task_id.clone(), lock(&mounted.view).shown)).collect()
    }

    /// Forgets containers that `lives` doesn't know and that were lost with their worker long ago.
    pub(super) fn forget_lost(&self, now: Seconds, lives: impl Fn(&str) -> bool) {
        lock(&self.mounts).retain(|(task_id, _), mounted| {
            let mut view = lock(&mounted.view);
            if lives(task_id) {
                view.lost_since = None;
                return true;
            }
            now - *view.lost_since.get_or_insert(now) < LOST
        });
    }

    /// A worker is gone: nobody gets an answer of it.
    pub(super) fn worker_gone(&self, worker_id: &str) {
        lock(&self.takes).retain(|_, waiter| waiter.worker_id != worker_id);
        lock(&self.shows).retain(|_, waiter| waiter.worker_id != worker_id);
    }

    pub(super) fn expect_taken(
        &self,
        op_id: &str,
        worker_id: &str,
    ) -> oneshot::Receiver<Result<Settled, CommitError>> {
        expect(&self.takes, op_id, worker_id)
    }

    pub(super) fn expect_shown(
        &self,
        op_id: &str,
        worker_id: &str,
    ) -> oneshot::Receiver<wp::volume_shown::Outcome> {
        expect(&self.shows, op_id, worker_id)
    }

    pub(super) fn taken(&self, op_id: &str, result: Result<Settled, CommitError>) {
        answer(&self.takes, op_id, result);
    }

    pub(super) fn shown(&self, op_id: &str, outcome: wp::volume_shown::Outcome) {
        answer(&self.shows, op_id, outcome);
    }

    /// Nobody waits for this answer any more.
    pub(super) fn give_up(&self, op_id: &str) {
        lock(&self.takes).remove(op_id);
        lock(&self.shows).remove(op_id);
    }

    /// Puts what was heard of a task behind what was heard of it before. A receiver comes back when nobody is at work
    /// on that task: the caller is, from now on.
    pub(super) fn queue(&self, task_id: &str, heard: Heard) -> Option<mpsc::UnboundedReceiver<Heard>> {
        let mut queues = lock(&self.queues);
        let heard = match queues.get(task_id) {
            Some(queue) => match queue.send(heard) {
                Ok(()) => return None,
                Err(mpsc::error::SendError(heard)) => heard,
            },
            None => heard,
        };
        let (queue, waiting) = mpsc::unbounded_channel();
        // The receiver is right here.
        let _ = queue.send(heard);
        queues.insert(task_id.to_owned(), queue);
        Some(waiting)
    }

    /// The next of what was heard of a task; none when that was all, and the queue is gone.
    pub(super) fn next(&self, task_id: &str, waiting: &mut mpsc::UnboundedReceiver<Heard>) -> Option<Heard> {
        let mut queues = lock(&self.queues);
        let next = waiting.try_recv().ok();
        if next.is_none() {
            queues.remove(task_id);
        }
        next
    }

    /// Whether something that was heard of a task is not carried out yet.
    pub(super) fn is_busy(&self, task_id: &str) -> bool {
        lock(&self.queues).contains_key(task_id)
    }
}

fn expect<T>(
    waiters: &Mutex<HashMap<String, Waiter<T>>>,
    op_id: &str,
    worker_id: &str,
) -> oneshot::Receiver<T> {
    let (done, answer) = oneshot::channel();
    lock(waiters).insert(op_id.to_owned(), Waiter { worker_id: worker_id.to_owned(), done });
    answer
}

fn answer<T>(waiters: &Mutex<HashMap<String, Waiter<T>>>, op_id: &str, value: T) {
    if let Some(waiter) = lock(waiters).remove(op_id) {
        // Nobody waits any more when the caller went away.
        let _ = waiter.done.send(value);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change leaves the tables whole, so a panic elsewhere doesn't spoil them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
