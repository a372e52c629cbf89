//! Names that survive a loss of power: which of them do not yet, and how they come to.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use homeport_content::{FileContent, Leaf, LeafKind};

use crate::error::io_error;
use crate::hold::Root;
use crate::{Store, StoreError};

/// Up to so many files are synced one by one. From there on it pays to sync their file system, but that waits for
/// everything that anybody wrote to it.
pub(crate) const FEW: usize = 4;

/// What is known of names in this process.
///
/// Between the renaming of a file and the sync of its directory, others find it and may build on it: so it is here, and
/// they sync what they build on.
#[derive(Debug, Default)]
pub(crate) struct Names {
    unsynced: Mutex<HashSet<Root>>,
    /// Shards whose own names are on disk.
    shards: Mutex<HashSet<PathBuf>>,
}

impl Names {
    fn unsynced(&self) -> MutexGuard<'_, HashSet<Root>> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Gives a finished and synced file its name, which is to be synced after that.
    pub(crate) fn publish_as(&self, from: &Path, root: Root) -> Result<(), StoreError> {
        self.names.unsynced().insert(root);
        self.publish(from, &self.place_of(&root))
    }

    /// Makes names durable.
    pub(crate) fn sync_names(&self, roots: &[Root]) -> Result<(), StoreError> {
        if roots.len() > FEW {
            self.sync()?;
        } else {
            roots.iter().try_for_each(|root| self.sync_name(&self.place_of(root)))?;
        }
        let mut unsynced = self.names.unsynced();
        for root in roots {
            unsynced.remove(root);
        }
        Ok(())
    }

    /// Makes those of these names durable that another thread has just made.
    fn sync_unsynced(&self, roots: impl Iterator<Item = Root>) -> Result<(), StoreError> {
        let found: Vec<Root> = {
            let unsynced = self.names.unsynced();
            if unsynced.is_empty() {
                return Ok(());
            }
            let found: HashSet<Root> = roots.filter(|root| unsynced.contains(root)).collect();
            found.into_iter().collect()
        };
        self.sync_names(&found)
    }

    /// Stores an encoded tree or delta with these leaves. The names of all objects in it are durable before it has its
    /// own, and that is on return.
    pub(crate) fn put_encoded(&self, root: Root, bytes: &[u8], leaves: &[Leaf]) -> Result<(), StoreError> {
        if self.keep(&self.place_of(&root))? {
            return self.sync_unsynced(std::iter::once(root));
        }
        self.sync_unsynced(leaves.iter().filter_map(object))?;
        let scratch = self.scratch_dir()?;
        let written = scratch.path().join("encoded");
        File::create_new(&written)
            .and_then(|mut file| {
                file.write_all(bytes)?;
                file.sync_all()
            })
            .map_err(io_error("write", &written))?;
        self.publish_as(&written, root)?;
        self.sync_names(&[root])
    }

    /// Syncs the directory of a published file, and once the name of that.
    fn sync_name(&self, published: &Path) -> Result<(), StoreError> {
        let Some((shard, kind)) = published.parent().and_then(|shard| Some((shard, shard.parent()?))) else {
            return Ok(());
        };
        sync_directory(shard)?;
        let mut shards = self.names.shards.lock().unwrap_or_else(PoisonError::into_inner);
        if !shards.contains(shard) {
            // All that are there now are durable after this.
            let entries = fs::read_dir(kind).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
            let entries = entries.map_err(io_error("list", kind))?;
            sync_directory(kind)?;
            shards.extend(entries.into_iter().map(|entry| entry.path()));
        }
        Ok(())
    }
}

fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    File::open(directory).and_then(|handle| handle.sync_all()).map_err(io_error("sync", directory))
}

fn object(leaf: &Leaf) -> Option<Root> {
    match &leaf.kind {
        LeafKind::File(FileContent::Object { digest, .. }) => Some(Root::Object(*digest)),
        _ => None,
    }
}
