//! Names that survive a loss of power: which of them do not yet, and how they come to.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use homeport_content::{Digest, FileContent, Leaf, LeafKind};

use crate::error::io_error;
use crate::hold::Root;
use crate::{Store, StoreError};

/// Up to so many files are synced by themselves. To sync their file system would wait for everything that anybody
/// wrote to it, which only pays for more.
const FEW: usize = 16;

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

    fn shards(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds those of these names that another thread has just made.
    fn find_unsynced(&self, roots: impl Iterator<Item = Root>, found: &mut Vec<Root>) {
        let unsynced = self.unsynced();
        if !unsynced.is_empty() {
            let known: HashSet<Root> = found.iter().copied().collect();
            let found_now: HashSet<Root> =
                roots.filter(|root| unsynced.contains(root) && !known.contains(root)).collect();
            found.extend(found_now);
        }
    }
}

/// A tree or delta on its way into the store.
pub(crate) struct Encoded<'a> {
    pub(crate) root: Root,
    pub(crate) bytes: &'a [u8],
    pub(crate) leaves: &'a [Leaf],
}

impl Store {
    /// Gives a finished and synced file its name, which is to be synced after that.
    pub(crate) fn publish_as(&self, from: &Path, root: Root) -> Result<(), StoreError> {
        self.names.unsynced().insert(root);
        self.publish(from, &self.place_of(&root))
    }

    /// Stores a tree or delta, all of whose objects are here.
    pub(crate) fn put_encoded(&self, encoded: &Encoded<'_>) -> Result<(), StoreError> {
        let scratch = self.scratch_dir()?;
        self.publish_all(&HashMap::new(), Some(encoded), scratch.path())
    }

    /// Makes finished files objects, then what names them a tree or delta. Bytes are on disk before they have a name,
    /// names before there is something that says them, and all of it on return.
    pub(crate) fn publish_all(
        &self,
        staged: &HashMap<Digest, PathBuf>,
        encoded: Option<&Encoded<'_>>,
        scratch: &Path,
    ) -> Result<(), StoreError> {
        let mut names: Vec<Root> = staged.keys().map(|digest| Root::Object(*digest)).collect();
        let mut files: Vec<&Path> = staged.values().map(PathBuf::as_path).collect();
        let written = scratch.join("encoded");
        let mut new = None;
        if let Some(encoded) = encoded {
            // Another thread may just be at these.
            let objects = encoded.leaves.iter().filter_map(object);
            self.names.find_unsynced(objects.chain([encoded.root]), &mut names);
            if !self.keep(&self.place_of(&encoded.root))? {
                new = Some(encoded.root);
                fs::write(&written, encoded.bytes).map_err(io_error("write", &written))?;
                files.push(&written);
            }
        }
        if files.len() > FEW {
            self.sync()?;
        } else {
            sync_each(&files)?;
        }
        for (digest, path) in staged {
            self.publish_as(path, Root::Object(*digest))?;
        }
        self.sync_names(&names)?;
        if let Some(root) = new {
            self.publish_as(&written, root)?;
            self.sync_names(&[root])?;
        }
        Ok(())
    }

    /// Makes names durable.
    fn sync_names(&self, roots: &[Root]) -> Result<(), StoreError> {
        if roots.len() > FEW {
            self.sync()?;
        } else {
            self.sync_shards(
                roots.iter().filter_map(|root| Some(self.place_of(root).parent()?.to_owned())).collect(),
            )?;
        }
        let mut unsynced = self.names.unsynced();
        for root in roots {
            unsynced.remove(root);
        }
        Ok(())
    }

    /// Syncs shards, and once the name of each.
    fn sync_shards(&self, shards: HashSet<PathBuf>) -> Result<(), StoreError> {
        let known = |shard: &Path| self.names.shards().contains(shard);
        let new = shards.iter().filter(|shard| !known(shard));
        let kinds: HashSet<&Path> = new.filter_map(|shard| shard.parent()).collect();
        let mut durable = Vec::new();
        for kind in &kinds {
            // Whatever is in there now is durable after the sync.
            for entry in fs::read_dir(kind).map_err(io_error("list", kind))? {
                durable.push(entry.map_err(io_error("list", kind))?.path());
            }
        }
        let directories: Vec<&Path> = shards.iter().map(PathBuf::as_path).chain(kinds).collect();
        sync_each(&directories)?;
        self.names.shards().extend(durable);
        Ok(())
    }
}

/// Syncs few files or directories, all at once: a journal takes them together.
fn sync_each(paths: &[&Path]) -> Result<(), StoreError> {
    let sync =
        |path: &Path| File::open(path).and_then(|file| file.sync_all()).map_err(io_error("sync", path));
    if let [path] = paths {
        return sync(path);
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = paths.iter().map(|path| (path, scope.spawn(|| sync(path)))).collect();
        threads.into_iter().try_for_each(|(path, thread)| match thread.join() {
            Ok(synced) => synced,
            Err(_) => {
                Err(io_error("sync", path)(std::io::Error::other("the thread that should do it failed")))
            }
        })
    })
}

fn object(leaf: &Leaf) -> Option<Root> {
    match &leaf.kind {
        LeafKind::File(FileContent::Object { digest, .. }) => Some(Root::Object(*digest)),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use homeport_content::{Delta, Metadata, Tree};

    use super::*;

    fn unsynced(store: &Store) -> usize {
        store.names.unsynced().len()
    }

    /// An object as another thread has it between the renaming and the sync.
    fn half_published(store: &Store, bytes: &[u8]) -> Leaf {
        let digest = Digest::of(bytes);
        let scratch = store.scratch_dir().unwrap();
        let written = scratch.path().join("object");
        fs::write(&written, bytes).unwrap();
        store.publish_as(&written, Root::Object(digest)).unwrap();
        let content = FileContent::Object { digest, size: bytes.len() as u64 };
        Leaf { metadata: Metadata::with_mode(0o644), kind: LeafKind::File(content) }
    }

    #[test]
    fn what_is_built_on_is_synced_first() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let leaf = half_published(&store, &[1; 1000]);
        let other = half_published(&store, &[2; 1000]);
        let mut tree = Tree::default();
        tree.insert_leaf(b"f", leaf).unwrap();
        assert_eq!(unsynced(&store), 2);
        store.put_delta(&Delta::from_tree(&tree)).unwrap();
        assert_eq!(unsynced(&store), 1);
        tree.insert_leaf(b"g", other).unwrap();
        let id = store.put_tree(&tree).unwrap();
        assert_eq!(unsynced(&store), 0);
        // A tree that another thread is just storing is not durable for being found.
        store.names.unsynced().insert(Root::Tree(id));
        store.put_tree(&tree).unwrap();
        assert_eq!(unsynced(&store), 0);
    }

    #[test]
    fn nothing_is_left_of_a_batch_of_any_size() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for count in [1, FEW, FEW + 1, 40] {
            let batch = store.batch().unwrap();
            for number in 0..count {
                batch.put_bytes(&[count as u8, number as u8].repeat(400)).unwrap();
            }
            batch.publish_with_delta(&Delta::new(Metadata::with_mode(count as u32))).unwrap();
            assert_eq!(unsynced(&store), 0);
        }
    }
}
