//! Deltas: what changed from one tree to another, and stacks of them over a tree.
//!
//! A delta is shaped like a tree. A directory in it is merged with the directory that has the same path below; anything
//! else in it replaces what is below; a removed name hides what is below. So a delta can be mounted as a layer.
//!
//! There is no mark for a directory that hides the one below: names of the lower directory that are gone are said one by
//! one. That makes every delta a plain set of changes by path, which is what merging needs.

use std::collections::BTreeMap;

use crate::{Digest, Leaf, LeafId, Metadata, SnapshotId};

/// The digest of a delta's canonical encoding.
pub type DeltaId = Digest;

/// Changes by path.
///
/// Hard links within a delta are entries with one [`LeafId`]. A delta that changes a file with several names has all of
/// its names: links never reach from one layer into another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The root directory, which every tree has.
    pub root: ChangedDirectory,
    /// The leaves, by [`LeafId`].
    pub leaves: Vec<Leaf>,
}

/// A directory that exists after the change, with those of its entries that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedDirectory {
    /// The metadata after the change.
    pub metadata: Metadata,
    /// Changed entries by name.
    pub entries: BTreeMap<Box<[u8]>, Change>,
}

/// What became of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is a directory: the one below with changes, or a new one where there is none below.
    Directory(Box<ChangedDirectory>),
    /// It is this leaf.
    Leaf(LeafId),
    /// It is gone. Something of this name was below.
    Removed,
}

/// The names of the layers of one version: a snapshot and the deltas over it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stack {
    /// The lowest layer.
    pub base: SnapshotId,
    /// The oldest first.
    pub deltas: Vec<DeltaId>,
}

impl Stack {
    /// A stack of one snapshot.
    pub fn of(base: SnapshotId) -> Stack {
        Stack { base, deltas: Vec::new() }
    }

    /// This stack with one more delta on top.
    #[must_use]
    pub fn with(&self, delta: DeltaId) -> Stack {
        let mut stack = self.clone();
        stack.deltas.push(delta);
        stack
    }
}

impl Delta {
    /// A delta without changes of entries; the root has this metadata.
    pub fn new(root: Metadata) -> Delta {
        Delta { root: ChangedDirectory::new(root), leaves: Vec::new() }
    }
}

impl ChangedDirectory {
    /// A directory of which no entry changed.
    pub fn new(metadata: Metadata) -> ChangedDirectory {
        ChangedDirectory { metadata, entries: BTreeMap::new() }
    }
}
