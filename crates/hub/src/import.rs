//! Puts a directory into the store and moves a branch of a repository to it.
//!
//! The tree holds what a repository holds: names and bytes. Owners, times, modes and attributes
//! of the directory are dropped, so the same files give the same snapshot and the same commit
//! wherever and whenever they are imported; importing them again changes nothing.

mod contents;
mod scan;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use homeport_content::{PathError, SnapshotId};
use homeport_store::{Store, StoreError};

use crate::catalog::{CatalogError, ModelCatalog};
use crate::hash::CommitHash;
use crate::record::{Commit, FORMAT, ModelRecord, commit_hash};
use crate::repo::{RepoId, RevisionName};
use contents::store_files;

/// How often an import starts over because another one moved a branch of the same repository.
const MAX_CONFLICTS: usize = 100;

/// What to import, and as what.
#[derive(Debug, Clone)]
pub struct ImportRequest {
    /// The directory with the model's files.
    pub directory: PathBuf,
    /// The repository to make or to add to.
    pub repo: RepoId,
    /// The branch to make or to move.
    pub branch: RevisionName,
    /// The time to record, in seconds since 1970.
    pub now: i64,
}

/// How far an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportProgress {
    /// Bytes read and stored so far.
    pub bytes_done: u64,
    /// Bytes of all files.
    pub bytes_total: u64,
    /// Number of files stored so far.
    pub files_done: usize,
    /// Number of all files.
    pub files_total: usize,
}

/// What an import came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportOutcome {
    /// The commit at which the branch stands now.
    pub commit: CommitHash,
    /// Its tree.
    pub snapshot: SnapshotId,
    /// Number of its files.
    pub files: usize,
    /// Bytes of its files.
    pub bytes: u64,
    /// Whether anything changed: `false` if the branch was already there.
    pub changed: bool,
}

/// An import failed; the repository is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The path leads to something else.
    #[error("`{}` is not a directory; a model is imported from the directory with its files", .0.display())]
    NotADirectory(PathBuf),
    /// There is nothing to import.
    #[error("`{}` holds no files to import", .0.display())]
    Empty(PathBuf),
    /// The directory is a repository of the client library's cache, with all its revisions.
    #[error("`{}` is a cache with several revisions; import one of them, for example `{}`", directory.display(), snapshot.display())]
    CacheRoot {
        /// The directory that was given.
        directory: PathBuf,
        /// A directory to import instead.
        snapshot: PathBuf,
    },
    /// A device, pipe, socket or link to a directory.
    #[error("`{}` is neither a regular file nor a directory, so it cannot be part of a model; remove it or import a copy without it", .0.display())]
    NotAFile(PathBuf),
    /// A link out of the directory.
    #[error("the link `{}` leads outside the directory, to `{}`; put a copy of the file in its place", link.display(), target.display())]
    LinkLeadsOutside {
        /// The link.
        link: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A name that no URL can carry.
    #[error("the name of `{}` is not UTF-8, so no client could ask for it; rename it", .0.display())]
    NotUtf8(PathBuf),
    /// Directories nest too deep.
    #[error("`{}` is nested too deep for a model", .0.display())]
    TooDeep(PathBuf),
    /// A file could not be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file grew or shrank while it was read.
    #[error("`{}` changed while it was imported ({expected} bytes became {found}); import again when it is complete", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// Its length at first.
        expected: u64,
        /// Its length when it was read.
        found: u64,
    },
    /// A file's path does not fit into a tree.
    #[error("`{path}` cannot be part of a tree")]
    Path {
        /// The path in the repository.
        path: String,
        /// Why not.
        source: PathError,
    },
    /// The content store failed.
    #[error("cannot store the model's files")]
    Store(#[from] StoreError),
    /// The catalog failed.
    #[error("cannot record the model")]
    Catalog(#[from] CatalogError),
    /// The import's own thread failed.
    #[error("the import was cut off: {0}")]
    Interrupted(String),
}

/// Imports a directory: its contents into `store`, then its name into `catalog`.
///
/// Once it returns, model and content survive a crash. `on_progress` is called from several
/// threads, after each piece read. Imports of one repository may run at the same time, in several
/// processes too: each makes its commit, and the last one decides where a shared branch stands.
pub async fn import_model(
    store: Arc<Store>,
    catalog: &dyn ModelCatalog,
    request: ImportRequest,
    on_progress: impl Fn(ImportProgress) + Send + Sync + 'static,
) -> Result<ImportOutcome, ImportError> {
    // Until the catalog names it.
    let _hold = store.hold();
    let directory = request.directory.clone();
    let stored = tokio::task::spawn_blocking(move || store_files(&store, &directory, &on_progress));
    let (snapshot, files) = stored.await.map_err(|error| ImportError::Interrupted(error.to_string()))??;
    let bytes = files.values().map(|file| file.size).sum();
    let count = files.len();
    let commit = Commit { hash: commit_hash(&snapshot), snapshot, created: request.now, files };
    let hash = commit.hash;
    let changed = move_branch(catalog, &request, commit).await?;
    tracing::info!(repo = %request.repo, branch = %request.branch, commit = %hash, files = count, bytes, changed, "model imported");
    Ok(ImportOutcome { commit: hash, snapshot, files: count, bytes, changed })
}

/// Records the commit and lets the branch point at it. `false` if it already did.
async fn move_branch(
    catalog: &dyn ModelCatalog,
    request: &ImportRequest,
    commit: Commit,
) -> Result<bool, ImportError> {
    let mut conflicts = 0;
    loop {
        let stored = catalog.get(&request.repo).await?;
        let Some(changed) = with_branch_at(stored.as_deref(), request, &commit) else {
            return Ok(false);
        };
        match catalog.put(&changed).await {
            Ok(()) => return Ok(true),
            Err(CatalogError::Conflict { .. }) if conflicts < MAX_CONFLICTS => conflicts += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

/// The record with the branch at the commit; `None` if it is there already.
fn with_branch_at(
    stored: Option<&ModelRecord>,
    request: &ImportRequest,
    commit: &Commit,
) -> Option<ModelRecord> {
    let mut record = stored.cloned().unwrap_or_else(|| ModelRecord {
        format: FORMAT,
        repo: request.repo.clone(),
        version: 0,
        created: request.now,
        last_modified: request.now,
        branches: BTreeMap::new(),
        commits: Vec::new(),
    });
    let before = record.branches.insert(request.branch.clone(), commit.hash);
    if before == Some(commit.hash) {
        return None;
    }
    if record.commit(commit.hash).is_none() {
        record.commits.push(commit.clone());
    }
    record.version += 1;
    record.last_modified = request.now;
    Some(record)
}
