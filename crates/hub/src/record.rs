//! What is known about a model: its branches, its commits and their files.

use std::collections::BTreeMap;

use homeport_content::SnapshotId;
use serde::{Deserialize, Serialize};

use crate::hash::{CommitHash, GitId, Sha256};
use crate::repo::{RepoId, RevisionName};

/// The version of the stored form of a [`ModelRecord`].
pub const FORMAT: u32 = 1;

/// A repository. Commits are never changed or dropped: an import adds one and moves a branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRecord {
    /// [`FORMAT`] when it was written.
    pub format: u32,
    /// The repository's name.
    pub repo: RepoId,
    /// Counts the stored versions of this record from 1; guards against lost updates.
    pub version: u64,
    /// When the repository was first imported, in seconds since 1970.
    pub created: i64,
    /// When a branch last moved, in seconds since 1970.
    pub last_modified: i64,
    /// Where each branch points.
    pub branches: BTreeMap<RevisionName, CommitHash>,
    /// All commits, oldest first.
    pub commits: Vec<Commit>,
}

/// One imported state of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The name by which clients pin it.
    pub hash: CommitHash,
    /// The tree with the files' contents.
    pub snapshot: SnapshotId,
    /// When it was first imported, in seconds since 1970.
    pub created: i64,
    /// The files by path from the root, with `/` between parts.
    pub files: BTreeMap<String, ModelFile>,
}

/// What a client is told about a file before it asks for the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFile {
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 of the bytes.
    pub sha256: Sha256,
    /// What git would call it: the id of the blob, or of the pointer of a large file.
    pub git_id: GitId,
    /// Whether the hub counts it as a large file.
    pub large: bool,
}

impl ModelFile {
    /// The entity tag, without quotes: the SHA-256 of a large file, the git id of another.
    pub fn etag(&self) -> String {
        if self.large { self.sha256.to_string() } else { self.git_id.to_string() }
    }
}

impl ModelRecord {
    /// The commit that a revision in a request means: a branch, `refs/heads/BRANCH`, or the full
    /// hash of any commit of this repository.
    pub fn resolve(&self, revision: &str) -> Option<&Commit> {
        let branch = revision.strip_prefix("refs/heads/").unwrap_or(revision);
        let hash = match self.branches.get(branch) {
            Some(hash) => *hash,
            None => revision.parse().ok()?,
        };
        self.commit(hash)
    }

    /// The commit with this hash.
    pub fn commit(&self, hash: CommitHash) -> Option<&Commit> {
        self.commits.iter().find(|commit| commit.hash == hash)
    }
}

/// The commit hash of a snapshot: the first half and a bit of its digest, the same on every
/// machine that imports the same files.
pub(crate) fn commit_hash(snapshot: &SnapshotId) -> CommitHash {
    let mut bytes = [0; 20];
    for (to, from) in bytes.iter_mut().zip(snapshot.as_bytes()) {
        *to = *from;
    }
    CommitHash::from_bytes(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn commit_of(seed: &[u8]) -> Commit {
        let snapshot = SnapshotId::of(seed);
        Commit { hash: commit_hash(&snapshot), snapshot, created: 1, files: BTreeMap::new() }
    }

    pub(crate) fn record_of(repo: &str, commits: &[&[u8]]) -> ModelRecord {
        let commits: Vec<Commit> = commits.iter().map(|seed| commit_of(seed)).collect();
        let branches = commits.last().map(|last| (RevisionName::default(), last.hash));
        ModelRecord {
            format: FORMAT,
            repo: repo.parse().unwrap(),
            version: 1,
            created: 1,
            last_modified: 1,
            branches: branches.into_iter().collect(),
            commits,
        }
    }

    #[test]
    fn branches_and_old_commits_resolve_and_nothing_else() {
        let record = record_of("a/b", &[b"old", b"new"]);
        let (old, new) = (&record.commits[0], &record.commits[1]);
        assert_eq!(record.resolve("main"), Some(new));
        assert_eq!(record.resolve("refs/heads/main"), Some(new));
        assert_eq!(record.resolve(&old.hash.to_string()), Some(old));
        let unknown = commit_of(b"other").hash.to_string();
        for revision in ["", "v1", "refs/pr/1", "refs/tags/main", &unknown, &unknown[..7]] {
            assert_eq!(record.resolve(revision), None, "{revision}");
        }
    }
}
