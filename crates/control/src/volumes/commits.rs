//! Commits and reloads, as containers ask for them.

use std::sync::Arc;

use homeport_proto::client as pb;
use homeport_proto::record as rec;
use homeport_proto::worker as wp;
use tonic::Status;
use wp::order::Order;
use wp::volume_shown::Outcome as Shown;

use super::containers::{Mounted, Settled};
use super::publish::display_name;
use super::version::to_worker;
use super::{Version, VolumeError};
use crate::control::Control;
use crate::ids;

/// Layers above the base through which a container may see a Volume after a commit; above that it is shown the newest
/// version, which has fewer.
const DEEPEST_VIEW: usize = 8;
/// Times that a reload takes what a container goes on to write.
const ATTEMPTS: usize = 10;

/// Why a container could not commit or reload.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    /// The caller is no container that has it.
    #[error("this container does not have the Volume {0} mounted; only one that has can commit or reload it")]
    NotMounted(String),
    /// The worker said why.
    #[error("{0}")]
    Worker(String),
    /// What was changed before is not in the history yet.
    #[error("earlier changes are not committed yet: {0}")]
    Owed(String),
    /// The container writes and writes.
    #[error("the Volume {0} is being written to all the time; reload it when the writers have finished")]
    Writing(String),
    /// The worker went away.
    #[error("the worker of this container went away")]
    Lost,
    /// The history could not be written.
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

impl From<CommitError> for Status {
    fn from(error: CommitError) -> Self {
        let text = error.to_string();
        match error {
            // Clients make this a `RuntimeError` with the text.
            CommitError::NotMounted(_) | CommitError::Worker(_) | CommitError::Writing(_) => {
                Self::failed_precondition(text)
            }
            CommitError::Volume(error) if error.is_full() => Self::failed_precondition(text),
            CommitError::Volume(error) => error.into(),
            // Clients try again after this one.
            CommitError::Owed(_) | CommitError::Lost => Self::unavailable(text),
        }
    }
}

impl Control {
    /// Brings into the history what a container changed. If it can be, the container sees the newest version after it.
    pub(crate) async fn commit_volume(&self, task_id: &str, volume_id: &str) -> Result<(), CommitError> {
        let mounted = self.mounted(task_id, volume_id)?;
        let _turn = mounted.turn.lock().await;
        if !self.take_volume(&mounted).await?.clean {
            return Ok(());
        }
        let head = self.volumes.head(volume_id)?;
        if !mounted.sees(head.number(), DEEPEST_VIEW) {
            let strict = self.volumes.find(volume_id)?.strict_reload;
            // The commit is done; whether the container sees more than its own changes now is another matter.
            if let Err(error) = self.show_volume(&mounted, &head, strict).await {
                tracing::debug!(task = task_id, volume = volume_id, %error, "nothing newer was shown");
            }
        }
        Ok(())
    }

    /// Shows a container the newest version, with what it changed itself.
    pub(crate) async fn reload_volume(&self, task_id: &str, volume_id: &str) -> Result<(), CommitError> {
        let mounted = self.mounted(task_id, volume_id)?;
        let _turn = mounted.turn.lock().await;
        for _ in 0..ATTEMPTS {
            let head = self.volumes.head(volume_id)?;
            let strict = self.volumes.find(volume_id)?.strict_reload;
            match self.show_volume(&mounted, &head, strict).await? {
                Shown::Version(_) => return Ok(()),
                Shown::Busy(text) | Shown::Error(text) => return Err(CommitError::Worker(text)),
                Shown::Changed(_) => {
                    self.take_volume(&mounted).await?;
                }
            }
        }
        Err(CommitError::Writing(mounted.name.clone()))
    }

    fn mounted(&self, task_id: &str, volume_id: &str) -> Result<Arc<Mounted>, CommitError> {
        let found = self.volumes.containers.find(task_id, volume_id);
        found.ok_or_else(|| {
            let name = self.volumes.find(volume_id).map(|volume| display_name(&volume));
            CommitError::NotMounted(name.unwrap_or_else(|_| volume_id.to_owned()))
        })
    }

    async fn take_volume(&self, mounted: &Mounted) -> Result<Settled, CommitError> {
        let op_id = ids::fresh(&*self.entropy, "op");
        let answer = self.volumes.containers.expect_taken(&op_id, &mounted.worker_id);
        let _guard = Asked { control: self, op_id: &op_id };
        let order = wp::TakeVolume {
            op_id: op_id.clone(),
            task_id: mounted.task_id.clone(),
            volume_id: mounted.volume_id.clone(),
        };
        if !self.links.send(&mounted.worker_id, Order::TakeVolume(order)) {
            return Err(CommitError::Lost);
        }
        answer.await.map_err(|_| CommitError::Lost)?
    }

    async fn show_volume(
        &self,
        mounted: &Mounted,
        version: &Version,
        strict: bool,
    ) -> Result<Shown, CommitError> {
        mounted.pin(&self.store, &version.stack);
        let op_id = ids::fresh(&*self.entropy, "op");
        let answer = self.volumes.containers.expect_shown(&op_id, &mounted.worker_id);
        let _guard = Asked { control: self, op_id: &op_id };
        let order = wp::ShowVolume {
            op_id: op_id.clone(),
            task_id: mounted.task_id.clone(),
            volume_id: mounted.volume_id.clone(),
            stack: Some(to_worker(&version.stack)),
            version: version.number(),
            strict,
        };
        if !self.links.send(&mounted.worker_id, Order::ShowVolume(order)) {
            return Err(CommitError::Lost);
        }
        answer.await.map_err(|_| CommitError::Lost)
    }
}

/// Somebody waits for an answer; when they stop, nobody does.
struct Asked<'a> {
    control: &'a Control,
    op_id: &'a str,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.control.volumes.containers.give_up(self.op_id);
    }
}

/// What clients hold of a Volume.
pub(crate) fn metadata(volume: &rec::Volume) -> pb::VolumeMetadata {
    pb::VolumeMetadata {
        version: volume.api_version,
        name: volume.name.clone(),
        creation_info: Some(pb::CreationInfo { created_at: volume.created_at, ..Default::default() }),
    }
}
