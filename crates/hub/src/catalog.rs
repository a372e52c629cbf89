//! Which models there are.

mod directory;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use crate::record::ModelRecord;
use crate::repo::RepoId;

pub use directory::DirectoryCatalog;

/// Keeps the records of models by repository.
///
/// A record that [`put`](ModelCatalog::put) returned from survives a crash of the machine.
/// Readers see a record before or after a change, never in between.
#[async_trait]
pub trait ModelCatalog: std::fmt::Debug + Send + Sync {
    /// The record of `repo`, or `None` if there is no such model.
    async fn get(&self, repo: &RepoId) -> Result<Option<Arc<ModelRecord>>, CatalogError>;

    /// All records, in order of their names.
    async fn list(&self) -> Result<Vec<Arc<ModelRecord>>, CatalogError>;

    /// Stores a record whose version is one above the stored one (1 if there is none), else
    /// fails with [`CatalogError::Conflict`]: read it again, apply the change again, put again.
    async fn put(&self, record: &ModelRecord) -> Result<(), CatalogError>;

    /// Forgets a model; `false` if there was none. Its content stays in the store.
    async fn remove(&self, repo: &RepoId) -> Result<bool, CatalogError>;
}

/// A record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Somebody else changed the record between the caller's read and its put.
    #[error(
        "model `{repo}` was changed at the same time: version {stored} is stored, version {offered} was to replace it"
    )]
    Conflict {
        /// The model.
        repo: RepoId,
        /// The version that is stored; 0 if none is.
        stored: u64,
        /// The version that was offered.
        offered: u64,
    },
    /// The file system refused.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A stored record is damaged or was written by a newer version.
    #[error("the record of a model in `{}` cannot be read: {reason}; import the model again after moving the file away", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The catalog itself failed, for a reason that is not the caller's.
    #[error("the model catalog failed: {0}")]
    Internal(String),
}
