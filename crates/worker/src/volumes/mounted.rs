//! The Volumes of one task, from its start to its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use homeport_fs::{IdMap, VolumeError, VolumePlace, VolumeRequest};
use homeport_proto::worker as wp;
use homeport_proto::worker::TakeReason;
use homeport_runtime::{Bind, Container};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::note::Note;
use super::stacks::{self, BadLayer};
use super::volume::{Beginning, Gate, Layer, Stage, Volume};
use crate::error::blocking;
use crate::node::Node;
use crate::site::make_searchable;

/// Takes in the background have at most one part in this many of a container's time: for some of each, it is stopped.
const BACKGROUND_SHARE: u32 = 20;

/// How long the end of a task waits until control has what its container changed. After that the layers stay on disk,
/// and their reports are repeated.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same while this worker stops.
const PATIENCE_AT_STOP: Duration = Duration::from_secs(3);

/// A Volume could not be mounted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("the Volume `{name}` could not be mounted")]
    Mount { name: String, source: VolumeError },
    #[error("the Volume `{name}` could not be mounted: {source}")]
    Layer { name: String, source: BadLayer },
    #[error("the Volume `{name}` could not be mounted: `{path}`: {source}")]
    Staging { name: String, path: PathBuf, source: std::io::Error },
}

/// The Volumes of a task.
#[derive(Debug)]
pub(crate) struct MountedVolumes {
    volumes: Vec<Arc<Volume>>,
    binds: Vec<Bind>,
    gate: Gate,
    ending: CancellationToken,
}

impl MountedVolumes {
    /// Mounts Volumes for a task that is about to start. Blocks.
    pub(crate) fn open(
        node: &Node,
        task_id: &str,
        wanted: &[wp::VolumeMount],
        id_map: Option<&IdMap>,
    ) -> Result<Self, OpenError> {
        let mut opened = Self {
            volumes: Vec::new(),
            binds: Vec::new(),
            gate: Arc::new(Mutex::new(Stage::Starting)),
            ending: CancellationToken::new(),
        };
        for wanted in wanted {
            if let Err(error) = opened.open_one(node, task_id, wanted, id_map) {
                opened.drop_unused(node);
                return Err(error);
            }
        }
        // A place within another one comes after it, else it would be hidden.
        opened.binds.sort_by_key(|bind| bind.target.components().count());
        Ok(opened)
    }

    fn open_one(
        &mut self,
        node: &Node,
        task_id: &str,
        wanted: &wp::VolumeMount,
        id_map: Option<&IdMap>,
    ) -> Result<(), OpenError> {
        let name = || if wanted.name.is_empty() { &wanted.volume_id } else { &wanted.name }.clone();
        let bad_layer = |source| OpenError::Layer { name: name(), source };
        let seen = stacks::from_wire(&wanted.stack.clone().unwrap_or_default()).map_err(bad_layer)?;
        let places: Vec<VolumePlace> = wanted.places.iter().map(place).collect();
        let staging = node.staging.join(task_id).join(self.volumes.len().to_string());
        make_searchable(&staging).map_err(|source| OpenError::Staging {
            name: name(),
            path: staging.clone(),
            source,
        })?;
        let mounted = node.fs.open_volume(VolumeRequest {
            key: &format!("{task_id}-{}", wanted.volume_id),
            stack: &seen,
            id_map,
            places: &places,
            early_copies: &wanted.early_copies,
            quota_bytes: wanted.quota_bytes,
            staging: &staging,
        });
        let mount = match mounted {
            Ok(mount) => mount,
            Err(source) => {
                remove_staging(&staging);
                return Err(OpenError::Mount { name: name(), source });
            }
        };
        self.binds.extend(mount.binds().into_iter().map(|(source, target, read_only)| Bind {
            source,
            target,
            read_only,
        }));
        let note = Note {
            task: task_id.to_owned(),
            volume: wanted.volume_id.clone(),
            name: wanted.name.clone(),
            seen_version: wanted.version,
            ..Note::default()
        };
        let volume = Arc::new(Volume::new(Beginning {
            note,
            seen,
            showing: None,
            layer: Layer::Mounted(Box::new(mount)),
            staging: Some(staging),
            background: wanted.background_commits,
            gate: Arc::clone(&self.gate),
            store: Arc::clone(&node.store),
            places: places.into_iter().filter(|place| !place.read_only).map(|place| place.path).collect(),
            sync: Arc::clone(&node.volumes.sync),
        }));
        self.volumes.push(Arc::clone(&volume));
        volume.write_first_note().map_err(|source| OpenError::Mount { name: name(), source })?;
        node.volumes.add(&volume);
        Ok(())
    }

    /// What to bind into the container.
    pub(crate) fn binds(&self) -> &[Bind] {
        &self.binds
    }

    /// The container runs: from now on orders reach its Volumes, and changes are taken in the background.
    pub(crate) async fn begin(&self, node: &Arc<Node>, container: &Arc<Container>) {
        if self.volumes.is_empty() {
            return;
        }
        let mut stage = self.gate.lock().await;
        *stage = Stage::Running(Arc::clone(container));
        let (volumes, running) = (self.volumes.clone(), Arc::clone(container));
        let _ = blocking(move || volumes.iter().for_each(|volume| volume.watch_for_sync(&running))).await;
        drop(stage);
        let background: Vec<_> = self.volumes.iter().filter(|volume| volume.background).cloned().collect();
        if background.is_empty() {
            return;
        }
        let (node, ending) = (Arc::clone(node), self.ending.clone());
        tokio::spawn(async move {
            let mut pause = node.options.background_commits;
            while ending.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
                let began = Instant::now();
                for volume in &background {
                    // A take that has begun is brought to its end; the end of the task waits for it.
                    volume.take(&node.reports, TakeReason::Background, "").await;
                }
                pause = node.options.background_commits.max(began.elapsed() * (BACKGROUND_SHARE - 1));
            }
        });
    }

    /// The container has ended: takes what it changed, reports it, and waits for a while until control has it.
    /// `stopping` says that this worker stops.
    pub(crate) async fn end(&self, node: &Node, stopping: &CancellationToken) {
        if self.volumes.is_empty() {
            return;
        }
        self.ending.cancel();
        let before = std::mem::replace(&mut *self.gate.lock().await, Stage::Ended);
        if matches!(before, Stage::Starting) {
            self.abandon(node).await;
            return;
        }
        drop(before);
        for volume in &self.volumes {
            volume.take(&node.reports, TakeReason::Ended, "").await;
        }
        let settled = async {
            for volume in &self.volumes {
                volume.settled().await;
            }
        };
        let mut attached = node.volumes.attached.subscribe();
        let patience = async {
            let short = async {
                stopping.cancelled().await;
                tokio::time::sleep(PATIENCE_AT_STOP).await;
            };
            tokio::select! {
                () = tokio::time::sleep(PATIENCE) => {}
                () = short => {}
            }
        };
        tokio::select! {
            biased;
            () = settled => {}
            _ = attached.wait_for(|attached| !*attached) => {}
            () = patience => {
                tracing::warn!("control has not acknowledged what a container changed in its Volumes; it stays on disk");
            }
        }
        for volume in &self.volumes {
            node.volumes.give_up(volume).await;
        }
    }

    /// Nothing has run: there is nothing to take.
    pub(crate) async fn abandon(&self, node: &Node) {
        for volume in &self.volumes {
            volume.forget().await;
            node.volumes.remove(volume);
        }
    }

    /// The same on a thread that may block.
    fn drop_unused(&self, node: &Node) {
        for volume in &self.volumes {
            volume.forget_on_this_thread();
            node.volumes.remove(volume);
        }
    }
}

fn place(place: &wp::VolumePlace) -> VolumePlace {
    VolumePlace {
        path: place.path.clone().into(),
        sub_path: place.sub_path.trim_matches('/').into(),
        read_only: place.read_only,
    }
}

/// Removes a directory in which nothing is mounted any more, and the one of its task with the last of them. Never what
/// is in the places of mounts: were one still there, that would empty the Volume.
pub(super) fn remove_staging(staging: &Path) {
    for place in std::fs::read_dir(staging).into_iter().flatten().flatten() {
        // What fails here fails below as well.
        let _ = std::fs::remove_dir(place.path());
    }
    match std::fs::remove_dir(staging) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %staging.display(), "a directory is left until the next start");
        }
        _ => {}
    }
    if let Some(task) = staging.parent() {
        // Fails as long as it isn't empty.
        let _ = std::fs::remove_dir(task);
    }
}

/// Removes directories that an earlier run left; their mounts ended with it.
pub(crate) fn clear_staging(all: &Path) -> std::io::Result<()> {
    make_searchable(all)?;
    for task in std::fs::read_dir(all)? {
        let task = task?.path();
        for staging in std::fs::read_dir(&task)? {
            remove_staging(&staging?.path());
        }
        let _ = std::fs::remove_dir(&task);
    }
    Ok(())
}
