//! What the server does with its store beyond reading and writing: garbage, usage, faults.
//!
//! What must stay is said by the `roots`; everything else that is old enough is garbage. All work
//! here is on threads that may block, never on those of requests, and one thing at a time.

mod account;
mod background;
mod check;
mod collect;
mod metrics;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something unexpected happens")]
mod tests;
mod usage;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use homeport_content::Digest;
use homeport_image::Bases;

use crate::control::Control;
use crate::registry::RegistryError;
use crate::volumes::VolumeError;

pub(crate) use metrics::StorageMetrics;

/// What a collection shall do.
#[derive(Debug, Clone, Copy, Default)]
pub struct CollectOptions {
    /// Only say what would go.
    pub dry_run: bool,
    /// What nothing refers to stays while it is younger than this; the server's own age when absent.
    pub older_than: Option<Duration>,
}

/// How far a collection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectProgress {
    /// `roots`, `mark`, `sweep` or `images`.
    pub phase: &'static str,
    /// Objects, trees and deltas looked at in this phase.
    pub scanned: u64,
}

/// What a collection removed, or would have removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Contents of files.
    pub removed_objects: u64,
    /// Trees and deltas.
    pub removed_trees: u64,
    /// Mountable forms of trees.
    pub removed_images: u64,
    /// What all that took on disk.
    pub removed_bytes: u64,
    /// What is still in the store.
    pub kept_bytes: u64,
}

/// Where the space of the store goes.
#[derive(Debug, Clone, Default)]
pub struct DiskUsage {
    /// The largest first.
    pub rows: Vec<UsageRow>,
    /// Everything in the store.
    pub total_bytes: u64,
    /// What nothing refers to.
    pub garbage_bytes: u64,
    /// What is free on its file system.
    pub free_bytes: u64,
}

/// What one thing takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// `volume`, `image`, `model`, `mount`, `build cache`, `base image`, `running`, `upload`, `blob`,
    /// `layer cache` or `put aside`.
    pub kind: String,
    /// For people.
    pub name: String,
    /// All that it refers to.
    pub bytes: u64,
    /// What would be free without it.
    pub unique_bytes: u64,
}

/// What a check shall do.
#[derive(Debug, Clone, Default)]
pub struct CheckOptions {
    /// Put damaged files aside and mend what can be mended.
    pub repair: bool,
    /// Another data directory, store or directory of files to take good copies from.
    pub repair_from: Option<PathBuf>,
}

/// How far a check is, or one fault that it found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckEvent {
    /// Objects, trees and deltas read so far.
    pub checked_objects: u64,
    /// Bytes read so far.
    pub checked_bytes: u64,
    /// A sentence on a fault.
    pub fault: Option<String>,
    /// What was done about it.
    pub mended: Option<String>,
}

/// What a check came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checked {
    /// Objects, trees and deltas that were read.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Faults found.
    pub faults: u64,
    /// Faults mended.
    pub mended: u64,
}

/// Why the store could not be looked after.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] homeport_store::StoreError),
    /// A collection was refused or failed.
    #[error("{source}{}", of(owners))]
    Sweep {
        /// Why.
        source: Box<homeport_store::SweepError>,
        /// Whose content it is about, for people.
        owners: Vec<String>,
    },
    /// The database failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The Volumes could not be read.
    #[error(transparent)]
    Volumes(#[from] VolumeError),
    /// The models could not be read.
    #[error(transparent)]
    Models(#[from] homeport_hub::CatalogError),
    /// Mountable forms could not be removed.
    #[error("the cache of mountable layers could not be looked after: {0}")]
    Layers(#[source] BoxedError),
    /// The work's own thread failed.
    #[error("the work was cut off: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

impl StorageError {
    /// Whether the database had no space to write.
    fn is_full(&self) -> bool {
        matches!(self, Self::Registry(RegistryError::Query(error)) if error.is_full())
    }
}

/// Any error.
pub type BoxedError = Box<dyn std::error::Error + Send + Sync>;

impl From<homeport_meta::QueryError> for StorageError {
    fn from(error: homeport_meta::QueryError) -> Self {
        Self::Registry(error.into())
    }
}

fn of(owners: &[String]) -> String {
    if owners.is_empty() { String::new() } else { format!("; it belongs to {}", owners.join(", ")) }
}

/// The mountable forms of layers, which can be made again.
pub trait LayerCache: Send + Sync {
    /// Removes those that `keep` does not want, by what they are of and how long nobody mounted them.
    /// With `dry_run` they are only counted.
    fn forget(
        &self,
        keep: &dyn Fn(&Digest, Duration) -> bool,
        dry_run: bool,
    ) -> Result<ForgottenLayers, BoxedError>;
}

/// What was removed of the cache of layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ForgottenLayers {
    /// Mountable forms.
    pub count: u64,
    /// What they took on disk.
    pub bytes: u64,
    /// What the others take.
    pub kept_bytes: u64,
}

/// What belongs to the upkeep of the store and is not of the control plane.
pub struct Upkeep {
    /// The mountable forms of layers.
    pub layers: Arc<dyn LayerCache>,
    /// The base images.
    pub bases: Arc<Bases>,
    /// Directories of this server with files that may be good copies of damaged ones.
    pub copies: Vec<PathBuf>,
}

/// The state of the store's upkeep.
#[derive(Default)]
pub(crate) struct Storage {
    /// Held by who collects, counts or checks.
    turn: tokio::sync::Mutex<()>,
    upkeep: OnceLock<Upkeep>,
    pub(crate) metrics: StorageMetrics,
}

impl Control {
    /// Says what belongs to the upkeep of the store. Counts once.
    pub fn attach_upkeep(&self, upkeep: Upkeep) {
        // A second one would be a mistake of the caller's, without harm.
        let _ = self.storage.upkeep.set(upkeep);
    }
}
