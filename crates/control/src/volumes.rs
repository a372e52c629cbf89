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
mod chores;
mod commits;
mod compaction;
mod containers;
mod difference;
mod entry;
mod error;
mod history;
mod mounts;
mod publish;
mod recount;
mod restore;
mod retention;
mod roots;
mod settings;
mod settling;
mod since;
#[cfg(test)]
mod tests;
mod version;

pub use catalog::{NewVolume, Volumes};
pub(crate) use commits::metadata;
pub use difference::{DiffEntry, DiffKind};
pub use error::{EditError, VolumeError};
pub use history::LogEntry;
pub use publish::{Outcome, Report};
pub use retention::Retention;
pub use roots::VolumeRoots;
pub use settings::Settings;
pub use version::Version;

use std::sync::Arc;

use crate::control::Control;

impl Control {
    /// The Volumes.
    pub fn volumes(&self) -> &Arc<Volumes> {
        &self.volumes
    }
}

/// Runs what blocks off the threads of requests.
async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> Result<R, VolumeError> {
    tokio::task::spawn_blocking(work).await.map_err(VolumeError::Lost)
}
