//! One Volume of one task: its layer, what is taken from it, and what control is owed.

mod books;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use homeport_content::Stack;
use homeport_fs::{LeftVolume, ShowError, TakeKind, VolumeError, VolumeMount};
use homeport_proto::worker::report::Report;
use homeport_proto::worker::volume_shown::Outcome;
use homeport_proto::worker::{ShowVolume, TakeReason, VolumeTaken};
use homeport_runtime::Container;
use homeport_store::{Pin, Root, Store};
use tokio::sync::watch;

use self::books::roots;
use super::inside::look_inside;
use super::note::{Note, Showing};
use super::sync::SyncWatch;
use super::{Key, lock, stacks};
use crate::error::{blocking, sentence};
use crate::reports::Reports;

/// The first and the longest pause after which changes of an ended container are tried to be taken again.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LONGEST_RETRY: Duration = Duration::from_secs(300);

/// Where a task is in its life. Its Volumes share the lock around this, because they share the freezer of its container.
#[derive(Debug, Clone)]
pub(super) enum Stage {
    /// Nobody has seen its Volumes yet.
    Starting,
    Running(Arc<Container>),
    Ended,
}

pub(super) type Gate = Arc<tokio::sync::Mutex<Stage>>;

/// A Volume of a task.
#[derive(Debug)]
pub(super) struct Volume {
    task_id: String,
    volume_id: String,
    /// For messages.
    name: String,
    /// Whether changes are taken without being asked for.
    pub(super) background: bool,
    gate: Gate,
    store: Arc<Store>,
    /// Where the container sees it and can write.
    places: Vec<PathBuf>,
    sync: Arc<SyncWatch>,
    state: Mutex<State>,
    /// Taken and not acknowledged, the oldest first.
    owed: watch::Sender<Vec<VolumeTaken>>,
    /// The container has ended, and all that it changed is taken.
    over: AtomicBool,
}

#[derive(Debug)]
struct State {
    layer: Layer,
    /// A directory that goes with the layer's mounts.
    staging: Option<PathBuf>,
    /// The sequence that was given away last.
    sequence: u64,
    seen_version: u64,
    /// What the container sees, so far as it is known.
    seen: Stack,
    /// Keeps what is seen and what is owed in the store.
    pin: Pin,
    /// Noted by an earlier process: the version that it was about to show.
    showing: Option<(u64, Stack)>,
    /// Whether the note beside the layer names all that is owed, whatever happens.
    noted: bool,
    /// What was said last of a failure that nobody asked about.
    complained: String,
    /// When changes of an ended container are to be tried to be taken again, and the pause before that.
    retry: Option<(Instant, Duration)>,
}

pub(super) enum Layer {
    Mounted(Box<VolumeMount>),
    /// Of an earlier process, with the text that was noted beside it.
    Left(Box<LeftVolume>),
    Gone,
}

impl fmt::Debug for Layer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Mounted(_) => "Mounted",
            Self::Left(_) => "Left",
            Self::Gone => "Gone",
        })
    }
}

/// Why nothing could be taken.
#[derive(Debug, thiserror::Error)]
enum TakeError {
    #[error("the Volume `{name}` could not be committed")]
    Take { name: String, source: VolumeError },
    #[error("the Volume `{name}` could not be committed: its container can't be reached")]
    Inside { name: String, source: std::io::Error },
    #[error(
        "the container ended while its Volume `{0}` was being committed; what it changed is committed now"
    )]
    Ending(String),
    #[error(
        "the changes of the Volume `{name}` are taken, but can't be noted on disk; they will be committed later"
    )]
    Note { name: String, source: VolumeError },
    #[error("the Volume `{0}` is not mounted any more")]
    Gone(String),
    #[error("the worker failed while it committed the Volume `{0}`; its log says where")]
    Bug(String),
}

/// What a new [`Volume`] starts from.
pub(super) struct Beginning {
    pub(super) note: Note,
    pub(super) seen: Stack,
    pub(super) showing: Option<(u64, Stack)>,
    pub(super) layer: Layer,
    pub(super) staging: Option<PathBuf>,
    pub(super) background: bool,
    pub(super) gate: Gate,
    pub(super) store: Arc<Store>,
    pub(super) places: Vec<PathBuf>,
    pub(super) sync: Arc<SyncWatch>,
}

impl Volume {
    pub(super) fn new(beginning: Beginning) -> Self {
        let Beginning { note, seen, showing, layer, staging, background, gate, store, places, sync } =
            beginning;
        let (task, volume) = (note.task, note.volume);
        let owed: Vec<VolumeTaken> = note.owed.into_iter().map(|owed| owed.report(&task, &volume)).collect();
        let shown = showing.iter().flat_map(|(_, stack)| Root::of_stack(stack));
        let pin = store.pin(Root::of_stack(&seen).chain(shown).chain(roots(&owed)));
        let left = matches!(layer, Layer::Left(_));
        Self {
            name: if note.name.is_empty() { volume.clone() } else { note.name },
            task_id: task,
            volume_id: volume,
            background,
            gate,
            store,
            places,
            sync,
            state: Mutex::new(State {
                layer,
                staging,
                sequence: note.sequence,
                seen_version: note.seen_version,
                seen,
                pin,
                showing,
                noted: true,
                complained: String::new(),
                retry: left.then(|| (Instant::now(), FIRST_RETRY)),
            }),
            owed: watch::Sender::new(owed),
            over: AtomicBool::new(false),
        }
    }

    pub(super) fn key(&self) -> Key {
        (self.task_id.clone(), self.volume_id.clone())
    }

    /// Takes what the container changed, and reports it; `op_id` says to whom this is an answer. False when it failed.
    pub(super) async fn take(self: &Arc<Self>, reports: &Reports, reason: TakeReason, op_id: &str) -> bool {
        let stage = Arc::clone(&self.gate).lock_owned().await;
        let volume = Arc::clone(self);
        let done = blocking(move || {
            let taken = volume.take_on_this_thread(&stage, reason);
            (stage, taken)
        });
        let (stage, taken) = match done.await {
            Ok((stage, taken)) => (Some(stage), taken),
            Err(_) => (None, Err(TakeError::Bug(self.name.clone()))),
        };
        let succeeded = taken.is_ok();
        match taken {
            // Nothing new, and nobody asked.
            Ok(report) if report.delta.is_empty() && op_id.is_empty() => {}
            // What follows is the take of its end.
            Err(TakeError::Ending(_)) if op_id.is_empty() => {}
            Ok(report) => {
                lock(&self.state).complained.clear();
                // Those before it may have got lost, and would leave a hole.
                let earlier: Vec<VolumeTaken> = self.owed.borrow().clone();
                for owed in earlier.into_iter().filter(|owed| owed.sequence != report.sequence) {
                    reports.send(Report::VolumeTaken(owed)).await;
                }
                let answer = VolumeTaken { op_id: op_id.to_owned(), ..report };
                reports.send(Report::VolumeTaken(answer)).await;
            }
            Err(error) => {
                let text = sentence(&error);
                if self.is_news(&text) || !op_id.is_empty() {
                    tracing::warn!(task = self.task_id, volume = self.volume_id, error = text);
                    let failure = VolumeTaken { op_id: op_id.to_owned(), error: text, ..self.blank(reason) };
                    reports.send(Report::VolumeTaken(failure)).await;
                }
            }
        }
        drop(stage);
        succeeded
    }

    fn take_on_this_thread(
        self: &Arc<Self>,
        stage: &Stage,
        reason: TakeReason,
    ) -> Result<VolumeTaken, TakeError> {
        let mut state = lock(&self.state);
        // Ends when what was taken is pinned.
        let _hold = self.store.hold();
        let gone = || TakeError::Gone(self.name.clone());
        let failed = |source| TakeError::Take { name: self.name.clone(), source };
        let ended = matches!(stage, Stage::Ended);
        if ended && self.over.load(Ordering::Acquire) || matches!(stage, Stage::Starting) {
            return self.settle(&mut state, None, reason, true);
        }
        let taken = match (&mut state.layer, stage) {
            (Layer::Mounted(mount), Stage::Running(container)) => {
                let kind = if reason == TakeReason::Asked { TakeKind::Asked } else { TakeKind::Background };
                look_inside(container, |inside| mount.take(Some(inside), kind))
                    .map_err(|source| TakeError::Inside { name: self.name.clone(), source })?
                    .ok_or_else(|| TakeError::Ending(self.name.clone()))?
                    .map_err(failed)
            }
            (Layer::Mounted(mount), _) => mount.take(None, TakeKind::Ended).map_err(failed),
            (Layer::Left(left), _) => left.take().map_err(failed),
            (Layer::Gone, _) => Err(gone()),
        };
        if ended {
            state.retry = match (&taken, state.retry) {
                (Ok(_), _) => None,
                (Err(_), None) => Some((Instant::now() + FIRST_RETRY, FIRST_RETRY)),
                (Err(_), Some((_, pause))) => {
                    let longer = (pause * 2).min(LONGEST_RETRY);
                    Some((Instant::now() + longer, longer))
                }
            };
        }
        let taken = taken?;
        if let Stage::Running(container) = stage
            && taken.delta.is_some()
            && taken.clean
        {
            self.watch_for_sync(container);
        }
        let clean = taken.clean;
        let report = self.settle(&mut state, Some(taken), reason, clean);
        if ended {
            self.over.store(true, Ordering::Release);
        }
        report
    }

    /// Shows the container another version.
    pub(super) async fn show(self: &Arc<Self>, order: &ShowVolume) -> Outcome {
        let stage = Arc::clone(&self.gate).lock_owned().await;
        let (volume, order) = (Arc::clone(self), order.clone());
        let shown = blocking(move || {
            let outcome = volume.show_on_this_thread(&stage, &order);
            drop(stage);
            outcome
        });
        shown.await.unwrap_or_else(|_| Outcome::Error(sentence(&TakeError::Bug(self.name.clone()))))
    }

    fn show_on_this_thread(self: &Arc<Self>, stage: &Stage, order: &ShowVolume) -> Outcome {
        let mut state = lock(&self.state);
        let Stage::Running(container) = stage else {
            return Outcome::Error(super::not_here(&self.task_id));
        };
        let stack = match stacks::from_wire(&order.stack.clone().unwrap_or_default()) {
            Ok(stack) => stack,
            Err(error) => return Outcome::Error(sentence(&error)),
        };
        // Written before, so that a later process knows what the layer belongs to, whichever of both it finds.
        let showing = Showing { version: order.version, stack: stacks::to_wire(&stack).into() };
        if let Err(error) = self.write_note(&mut state, Some(showing)) {
            return Outcome::Error(sentence(&error));
        }
        let Layer::Mounted(mount) = &mut state.layer else {
            return Outcome::Error(super::not_here(&self.task_id));
        };
        let shown = look_inside(container, |inside| mount.show(inside, &stack, order.strict));
        match shown {
            Ok(None) => Outcome::Error(super::not_here(&self.task_id)),
            Ok(Some(Ok(()))) => {
                state.seen_version = order.version;
                state.seen = stack;
                self.pin(&mut state);
                self.watch_for_sync(container);
                Outcome::Version(order.version)
            }
            Ok(Some(Err(ShowError::Changed))) => Outcome::Changed(true),
            Ok(Some(Err(error @ ShowError::Busy { .. }))) => Outcome::Busy(sentence(&error)),
            Ok(Some(Err(error))) => Outcome::Error(format!(
                "the Volume `{}` could not be reloaded: {}",
                self.name,
                sentence(&error)
            )),
            Err(source) => Outcome::Error(sentence(&TakeError::Inside { name: self.name.clone(), source })),
        }
    }

    /// Notices the program `sync` at what the container sees now.
    pub(super) fn watch_for_sync(self: &Arc<Self>, container: &Container) {
        self.sync.watch(self, container, &self.places);
    }

    /// Control has the delta with this sequence in its history.
    pub(super) async fn kept(self: &Arc<Self>, sequence: u64) {
        let mut changed = false;
        self.owed.send_if_modified(|owed| {
            let before = owed.len();
            owed.retain(|taken| taken.sequence != sequence);
            changed = owed.len() != before;
            changed
        });
        if !changed || self.over.load(Ordering::Acquire) {
            return;
        }
        // Else a later process would say again what is in the history.
        let volume = Arc::clone(self);
        let _ = blocking(move || {
            let mut state = lock(&volume.state);
            volume.pin(&mut state);
            if let Err(error) = volume.write_note(&mut state, None) {
                tracing::warn!(volume = volume.volume_id, error = sentence(&error));
            }
        })
        .await;
    }

    /// Repeats what is owed, and takes what could not be taken from an ended container.
    pub(super) async fn say_what_is_owed(self: &Arc<Self>, reports: &Reports) {
        let (retry, reason) = {
            // Busy is: a take is under way, and says what is owed itself.
            let Ok(state) = self.state.try_lock() else {
                return;
            };
            let left = matches!(state.layer, Layer::Left(_));
            let reason = if left { TakeReason::Recovered } else { TakeReason::Ended };
            (state.retry.is_some_and(|(at, _)| at <= Instant::now()), reason)
        };
        if retry {
            self.take(reports, reason, "").await;
        }
        let volume = Arc::clone(self);
        let noted = blocking(move || {
            let mut state = lock(&volume.state);
            state.noted || volume.write_note(&mut state, None).is_ok()
        });
        if !noted.await.unwrap_or(false) {
            return;
        }
        let owed: Vec<VolumeTaken> = self.owed.borrow().clone();
        for taken in owed {
            reports.send(Report::VolumeTaken(taken)).await;
        }
    }

    /// Waits until nothing is owed.
    pub(super) async fn settled(&self) {
        // The sender is part of this.
        let _ = self.owed.subscribe().wait_for(Vec::is_empty).await;
    }

    /// Removes the layer when the container has ended, all is taken and nothing is owed. True when it is gone.
    pub(super) async fn give_up(self: &Arc<Self>) -> bool {
        if !self.over.load(Ordering::Acquire) || !self.owed.borrow().is_empty() {
            return false;
        }
        self.forget().await;
        true
    }

    /// Removes the layer, whatever is in it.
    pub(super) async fn forget(self: &Arc<Self>) {
        let volume = Arc::clone(self);
        let _ = blocking(move || volume.forget_on_this_thread()).await;
    }

    pub(super) fn forget_on_this_thread(&self) {
        let (layer, staging) = {
            let mut state = lock(&self.state);
            (std::mem::replace(&mut state.layer, Layer::Gone), state.staging.take())
        };
        let forgotten = match layer {
            Layer::Mounted(mount) => mount.forget(),
            Layer::Left(left) => left.forget(),
            Layer::Gone => Ok(()),
        };
        if let Err(error) = forgotten {
            let error = sentence(&error);
            tracing::error!(task = self.task_id, volume = self.volume_id, error, "a layer stays on disk");
        }
        if let Some(staging) = staging {
            super::mounted::remove_staging(&staging);
        }
    }

    fn is_news(&self, text: &str) -> bool {
        let mut state = lock(&self.state);
        let news = state.complained != text;
        text.clone_into(&mut state.complained);
        news
    }
}
