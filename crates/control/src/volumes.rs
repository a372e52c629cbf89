//! Volumes: which there are, what is in them, what was in them, and who has them mounted.
//!
//! A version of a Volume is a stack of layers in the store and a row in the database. Inserting the row with the
//! next number is the commit; everything that the row names is in the store before. For each Volume one change goes
//! at a time, and each is made against the newest version: [`publish`] merges what a container changed against what
//! it saw, and carries out what is asked for over the API.
//!
//! Absent: the reading and writing of files over the API, which is the business of `wire`, and mounts, which is that
//! of workers.

mod account;
mod catalog;
mod commits;
mod compaction;
mod containers;
mod error;
mod history;
mod mounts;
mod publish;
mod retention;
mod roots;
#[cfg(test)]
mod tests;
mod version;

pub use catalog::{NewVolume, Settings, Volumes};
pub(crate) use commits::metadata;
pub use error::{EditError, VolumeError};
pub use history::{DiffEntry, DiffKind, LogEntry};
pub use publish::{Outcome, Report};
pub use retention::Retention;
pub use roots::VolumeRoots;
pub use version::Version;

use std::sync::Arc;

use crate::clock::Seconds;
use crate::control::Control;

impl Control {
    /// The Volumes.
    pub fn volumes(&self) -> &Arc<Volumes> {
        &self.volumes
    }
}

/// Seconds for which the client of an ephemeral Volume may be silent: it says something every 300.
const SILENCE: Seconds = 900.0;
/// Seconds between two looks at what nobody uses.
const OFTEN: Seconds = 15.0;
/// Seconds between two looks at versions that grew too old.
const SELDOM: Seconds = 3600.0;

impl Control {
    /// Lets go of what is not in use, ends ephemeral Volumes of silent clients, drops old versions. All of it goes on
    /// beside the caller.
    pub(crate) fn look_after_volumes(&self) {
        let now = self.clock.now();
        if self.volumes.is_due(OFTEN, now, catalog::Chore::Often) {
            let lives = |task_id: &str| {
                self.with_scheduler(|scheduler, _| scheduler.live_tasks().any(|task| task.id == task_id))
            };
            self.volumes.containers.forget_lost(now, lives);
            self.volumes.release_idle();
            for id in self.volumes.silent(SILENCE) {
                let volumes = Arc::clone(&self.volumes);
                tokio::spawn(async move {
                    tracing::info!(volume = id, "the client of an ephemeral Volume is gone: it is deleted");
                    if let Err(error) = volumes.delete(&id).await {
                        tracing::warn!(volume = id, %error, "an ephemeral Volume could not be deleted");
                    }
                });
            }
        }
        if self.volumes.is_due(SELDOM, now, catalog::Chore::Seldom) {
            let volumes = Arc::clone(&self.volumes);
            tokio::spawn(async move { volumes.prune_all().await });
        }
    }
}

/// Runs what blocks off the threads of requests.
async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> Result<R, VolumeError> {
    tokio::task::spawn_blocking(work).await.map_err(VolumeError::Lost)
}
