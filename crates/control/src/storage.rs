//! What the server does with its store beyond reading and writing: garbage, usage, faults.
//!
//! What must stay is said by the roots; everything else that is old enough is
//! garbage. All work here is on threads that may block, never on those of requests.

use std::path::PathBuf;
use std::time::Duration;

use crate::control::Control;

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
    /// `volume`, `image`, `model`, `upload`, `blob`, `running`, …
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
    /// This version can't.
    #[error("{0} is not carried out by this version")]
    Unsupported(&'static str),
}

impl Control {
    /// Removes what nothing refers to. One at a time: a second call waits for the first.
    pub async fn collect_garbage(
        &self,
        options: CollectOptions,
        progress: impl Fn(CollectProgress) + Send + Sync + 'static,
    ) -> Result<Collected, StorageError> {
        let _ = (options, progress);
        Err(StorageError::Unsupported("garbage collection"))
    }

    /// Says where the space goes.
    pub async fn disk_usage(&self) -> Result<DiskUsage, StorageError> {
        Err(StorageError::Unsupported("the account of disk usage"))
    }

    /// Reads everything in the store and says what is wrong with it. `on_event` is called from
    /// another thread, at least about once a second.
    pub async fn check_store(
        &self,
        options: CheckOptions,
        on_event: impl Fn(CheckEvent) + Send + Sync + 'static,
    ) -> Result<Checked, StorageError> {
        let _ = (options, on_event);
        Err(StorageError::Unsupported("the check of the store"))
    }
}
