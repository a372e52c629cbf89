//! What is different between two versions.

use std::sync::Arc;

use homeport_content::{Change, Delta, Layered, LeafKind, Seen, diff};
use homeport_meta::volume_versions;
use homeport_store::Root;

use super::catalog::{Volumes, first};
use super::entry::layers;
use super::version::{Version, sql};
use super::{VolumeError, blocking};

/// What happened to a path between two versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiffKind {
    /// It was not there.
    Added,
    /// It was there, and is different.
    Changed,
    /// It is gone.
    Removed,
}

/// A path that differs between two versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffEntry {
    /// Without a leading slash.
    pub path: Vec<u8>,
    /// What happened.
    pub kind: DiffKind,
    /// Bytes before.
    pub old_size: u64,
    /// Bytes after.
    pub new_size: u64,
    /// Whether it is a directory; of one that is gone, whether it was.
    pub directory: bool,
}

impl Volumes {
    /// What is different in version `to` from version `from`. An empty `from` is the version before `to`.
    pub async fn diff(&self, volume_id: &str, from: &str, to: &str) -> Result<Vec<DiffEntry>, VolumeError> {
        let new = self.version(volume_id, to).await?;
        let old = if from.is_empty() {
            self.version_before(volume_id, new.number()).await?
        } else {
            self.version(volume_id, from).await?
        };
        let store = Arc::clone(&self.store);
        // Both may be dropped while they are read.
        let pin = self.store.pin(Root::of_stack(&old.stack).chain(Root::of_stack(&new.stack)));
        let entries = blocking(move || {
            let (old, new) = (layers(&store, &old.stack)?, layers(&store, &new.stack)?);
            Ok(entries(&old, &new, &diff(&old, &new)))
        });
        let entries = entries.await?;
        drop(pin);
        entries
    }

    /// The newest version below a number that is kept.
    async fn version_before(&self, volume_id: &str, number: u64) -> Result<Version, VolumeError> {
        let rows = volume_versions::list_after(&self.meta, volume_id, -1).await?;
        let before = rows.iter().rev().find(|row| row.number < sql(number));
        match before {
            Some(row) => Version::of_row(row),
            None => Ok(first(&*self.find(volume_id)?)),
        }
    }
}

/// A difference as a list.
fn entries(old: &Layered, new: &Layered, delta: &Delta) -> Vec<DiffEntry> {
    let mut entries = Vec::new();
    for (path, change) in delta.walk() {
        let (before, after) = (old.get(&path), new.get(&path));
        let directory = matches!(after.or(before), Some(Seen::Directory(_)));
        let kind = match (before, change) {
            (_, Change::Removed) => DiffKind::Removed,
            (None, _) => DiffKind::Added,
            // It leads to what changed, and is the same itself.
            (Some(Seen::Directory(before)), Change::Directory(after)) if *before == after.metadata => {
                continue;
            }
            (Some(_), _) => DiffKind::Changed,
        };
        let was_directory = matches!(before, Some(Seen::Directory(_)));
        entries.push(DiffEntry {
            kind,
            old_size: before.map_or(0, size),
            new_size: after.map_or(0, size),
            directory,
            path: path.clone(),
        });
        if was_directory && !matches!(change, Change::Directory(_)) {
            let gone = old.walk(&path).map(|(path, seen)| DiffEntry {
                path,
                kind: DiffKind::Removed,
                old_size: size(seen),
                new_size: 0,
                directory: matches!(seen, Seen::Directory(_)),
            });
            entries.extend(gone);
        }
    }
    entries
}

fn size(seen: Seen<'_>) -> u64 {
    match seen {
        Seen::Leaf { leaf, .. } => match &leaf.kind {
            LeafKind::File(content) => content.size(),
            _ => 0,
        },
        Seen::Directory(_) => 0,
    }
}
