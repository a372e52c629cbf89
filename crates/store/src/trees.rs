//! Trees: writing after their objects, reading with a bounded cache, checking.

use std::collections::HashMap;
use std::sync::Arc;

use homeport_content::{Digest, EntryRef, FileContent, LeafKind, SnapshotId, Tree};

use crate::hold::Root;
use crate::names::Encoded;
use crate::objects::check_size;
use crate::{Store, StoreError};

/// Encoded bytes of the trees kept decoded.
pub(crate) const CACHE_BYTES: usize = 64 << 20;

impl Store {
    /// Drops decoded trees and deltas whose files are gone.
    pub(crate) fn forget_cached(&self, gone: &dyn Fn(&Digest) -> bool) {
        self.trees.forget(gone);
        self.deltas.forget(gone);
    }

    /// Stores a tree. Everything that was published before is durable before the tree has its
    /// name, and the tree is durable on return. Whether its objects are here is not looked at.
    pub fn put_tree(&self, tree: &Tree) -> Result<SnapshotId, StoreError> {
        tree.validate()?;
        let bytes = tree.encode();
        let id = Digest::of(&bytes);
        self.put_encoded(&Encoded { root: Root::Tree(id), bytes: &bytes, leaves: &tree.leaves })?;
        Ok(id)
    }

    /// Whether the tree is here.
    pub fn contains_tree(&self, id: &SnapshotId) -> bool {
        self.place("trees", id).symlink_metadata().is_ok()
    }

    /// The tree with this id. What is read from disk is checked against the id.
    pub fn tree(&self, id: &SnapshotId) -> Result<Arc<Tree>, StoreError> {
        if let Some(tree) = self.trees.get(id) {
            return Ok(tree);
        }
        let bytes = self.read_checked(&Root::Tree(*id))?;
        let decoded = Tree::decode(&bytes);
        let tree = decoded.map_err(|source| StoreError::Undecodable { id: *id, source })?;
        let tree = Arc::new(tree);
        self.trees.insert(*id, Arc::clone(&tree), bytes.len());
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
