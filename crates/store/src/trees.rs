//! Trees: writing after their objects, reading with a bounded cache, checking.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::sync::{Arc, PoisonError};

use homeport_content::{Digest, EntryRef, FileContent, LeafKind, SnapshotId, Tree};

use crate::error::io_error;
use crate::objects::check_size;
use crate::{Store, StoreError};

/// Encoded bytes of the trees kept decoded; decoded they take some four times as much.
const CACHE_BYTES: usize = 64 << 20;

/// Decoded trees, the least recently used of which make way.
#[derive(Debug, Default)]
pub(crate) struct TreeCache {
    entries: HashMap<SnapshotId, Cached>,
    bytes: usize,
    clock: u64,
}

#[derive(Debug)]
struct Cached {
    tree: Arc<Tree>,
    bytes: usize,
    used: u64,
}

impl TreeCache {
    fn get(&mut self, id: &SnapshotId) -> Option<Arc<Tree>> {
        self.clock += 1;
        let cached = self.entries.get_mut(id)?;
        cached.used = self.clock;
        Some(Arc::clone(&cached.tree))
    }

    fn forget(&mut self, gone: &dyn Fn(&SnapshotId) -> bool) {
        let removed = self.entries.extract_if(|id, _| gone(id));
        self.bytes -= removed.map(|(_, cached)| cached.bytes).sum::<usize>();
    }

    fn insert(&mut self, id: SnapshotId, tree: Arc<Tree>, bytes: usize) {
        self.clock += 1;
        let used = self.clock;
        let cached = Cached { tree, bytes, used };
        self.bytes += bytes;
        if let Some(old) = self.entries.insert(id, cached) {
            self.bytes -= old.bytes;
        }
        while self.bytes > CACHE_BYTES && self.entries.len() > 1 {
            let oldest = self.entries.iter().min_by_key(|(_, cached)| cached.used);
            let Some(oldest) = oldest.map(|(id, _)| *id) else {
                return;
            };
            if let Some(removed) = self.entries.remove(&oldest) {
                self.bytes -= removed.bytes;
            }
        }
    }
}

impl Store {
    /// Drops decoded trees whose files are gone.
    pub(crate) fn forget_cached(&self, gone: &dyn Fn(&SnapshotId) -> bool) {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).forget(gone);
    }

    /// Stores a tree. Everything that was published before is durable before the tree has its
    /// name, and the tree is durable on return. Whether its objects are here is not looked at.
    pub fn put_tree(&self, tree: &Tree) -> Result<SnapshotId, StoreError> {
        tree.validate()?;
        let bytes = tree.encode();
        let id = Digest::of(&bytes);
        let place = self.place("trees", &id);
        if self.keep(&place)? {
            return Ok(id);
        }
        let scratch = self.scratch_dir()?;
        let written = scratch.path().join("tree");
        File::create_new(&written)
            .and_then(|mut file| file.write_all(&bytes))
            .map_err(io_error("write", &written))?;
        // One sync for the tree's bytes and for the names of its objects.
        self.sync()?;
        self.publish(&written, &place)?;
        self.sync_name(&place)?;
        Ok(id)
    }

    /// Whether the tree is here.
    pub fn contains_tree(&self, id: &SnapshotId) -> bool {
        self.place("trees", id).symlink_metadata().is_ok()
    }

    /// The tree with this id. What is read from disk is checked against the id.
    pub fn tree(&self, id: &SnapshotId) -> Result<Arc<Tree>, StoreError> {
        let cache = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = cache().get(id) {
            return Ok(tree);
        }
        let path = self.place("trees", id);
        let bytes = fs::read(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::MissingTree(*id),
            _ => io_error("read", &path)(error),
        })?;
        let found = Digest::of(&bytes);
        if found != *id {
            return Err(StoreError::Damaged { path, found });
        }
        let decoded = Tree::decode(&bytes);
        let tree = decoded.map_err(|source| StoreError::Undecodable { id: *id, source })?;
        let tree = Arc::new(tree);
        cache().insert(*id, Arc::clone(&tree), bytes.len());
        Ok(tree)
    }

    /// Checks a tree and every object that it names, reading all their bytes; returns the number
    /// of bytes of the objects. The first fault found is the error.
    pub fn verify_tree(&self, id: &SnapshotId) -> Result<u64, StoreError> {
        let mut checked = HashMap::new();
        for (_, entry) in self.tree(id)?.walk() {
            let EntryRef::Leaf(_, leaf) = entry else {
                continue;
            };
            if let LeafKind::File(FileContent::Object { digest, size }) = &leaf.kind {
                let found = match checked.get(digest) {
                    Some(found) => *found,
                    None => self.verify_object(digest)?,
                };
                checked.insert(*digest, found);
                check_size(digest, *size, found)?;
            }
        }
        Ok(checked.values().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_lets_go_of_the_least_recently_used() {
        let mut cache = TreeCache::default();
        let tree = Arc::new(Tree::default());
        let id = |number: u8| Digest::of(&[number]);
        for number in 0..4 {
            cache.insert(id(number), Arc::clone(&tree), CACHE_BYTES / 4);
        }
        assert!(cache.get(&id(0)).is_some());
        cache.insert(id(4), Arc::clone(&tree), CACHE_BYTES / 4);
        assert!(cache.get(&id(0)).is_some());
        assert!(cache.get(&id(1)).is_none());
        assert_eq!(cache.bytes, CACHE_BYTES);
    }
}
