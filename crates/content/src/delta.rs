//! Deltas: what changed from one tree to another, and stacks of them over a tree.
//!
//! A delta is shaped like a tree. A directory in it is merged with the directory that has the same path below; anything
//! else in it replaces what is below; a removed name hides what is below. So a delta can be mounted as a layer.
//!
//! There is no mark for a directory that hides the one below: names of the lower directory that are gone are said one by
//! one. That makes every delta a plain set of changes by path, which is what merging needs.

mod encoding;
mod validate;
mod walk;

use std::collections::BTreeMap;

pub use walk::WalkDelta;

use crate::replace::Renumbered;
use crate::tree::components;
use crate::{DecodeError, Digest, Directory, Entry, Leaf, LeafId, Metadata, SnapshotId, Tree};

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

    /// Everything that is in `tree`, as changes to an empty one.
    pub fn from_tree(tree: &Tree) -> Delta {
        Delta { root: ChangedDirectory::from_directory(&tree.root), leaves: tree.leaves.clone() }
    }

    /// The canonical bytes of the delta: as those of a tree, with one more kind of entry.
    ///
    /// A delta that [`Delta::validate`] refuses may give bytes that do not decode.
    pub fn encode(&self) -> Vec<u8> {
        encoding::encode(self)
    }

    /// The delta with these canonical bytes; every other input is refused.
    pub fn decode(bytes: &[u8]) -> Result<Delta, DecodeError> {
        encoding::decode(bytes)
    }

    /// The digest of the canonical bytes.
    pub fn id(&self) -> DeltaId {
        Digest::of(&self.encode())
    }

    /// Whether no entry is changed. The metadata of the root may be.
    pub fn is_empty(&self) -> bool {
        self.root.entries.is_empty()
    }

    /// Number of names in the delta: those of changed entries and of the directories that lead to them.
    pub fn entries(&self) -> u64 {
        self.root.count()
    }

    /// The leaf with this number.
    pub fn leaf(&self, id: LeafId) -> Option<&Leaf> {
        self.leaves.get(id.0 as usize)
    }

    /// Adds a leaf to the table. It is part of the delta once an entry names it.
    pub fn push_leaf(&mut self, leaf: Leaf) -> LeafId {
        // A delta of 2^32 leaves does not fit in memory before the number wraps.
        let id = LeafId(self.leaves.len() as u32);
        self.leaves.push(leaf);
        id
    }

    /// Numbers the leaves as the encoding does, and drops those without a name.
    pub(crate) fn renumber(&mut self) {
        let leaves = std::mem::take(&mut self.leaves);
        self.root.renumber(&leaves, &mut Renumbered::new(), &mut self.leaves);
    }

    /// What became of the name at `path`; `None` if the delta says nothing of it, as it does of what was below a name
    /// that is removed or replaced. The root has no name.
    pub fn get(&self, path: &[u8]) -> Option<&Change> {
        let mut directory = &self.root;
        let mut found: Option<&Change> = None;
        for part in components(path) {
            if let Some(change) = found {
                let Change::Directory(next) = change else { return None };
                directory = next;
            }
            found = Some(directory.entries.get(part)?);
        }
        found
    }
}

impl ChangedDirectory {
    /// A directory of which no entry changed.
    pub fn new(metadata: Metadata) -> ChangedDirectory {
        ChangedDirectory { metadata, entries: BTreeMap::new() }
    }

    /// The directory of this name, for changing; if there is none, `make` says what takes the place of what is there.
    pub(crate) fn directory(
        &mut self,
        name: Box<[u8]>,
        make: impl FnOnce() -> ChangedDirectory,
    ) -> &mut ChangedDirectory {
        let change = self.entries.entry(name).or_insert(Change::Removed);
        if !matches!(change, Change::Directory(_)) {
            *change = Change::Directory(Box::new(make()));
        }
        match change {
            Change::Directory(directory) => directory,
            Change::Leaf(_) | Change::Removed => unreachable!("it was made a directory"),
        }
    }

    fn renumber(&mut self, from: &[Leaf], numbers: &mut Renumbered<LeafId>, into: &mut Vec<Leaf>) {
        self.entries.retain(|_, change| {
            match change {
                Change::Removed => {}
                Change::Directory(directory) => directory.renumber(from, numbers, into),
                Change::Leaf(id) => match from.get(id.0 as usize) {
                    Some(leaf) => *id = numbers.copy(*id, leaf, into),
                    None => return false,
                },
            }
            true
        });
    }

    fn from_directory(directory: &Directory) -> ChangedDirectory {
        let entries = directory.entries.iter().map(|(name, entry)| {
            let change = match entry {
                Entry::Directory(directory) => {
                    Change::Directory(Box::new(ChangedDirectory::from_directory(directory)))
                }
                Entry::Leaf(id) => Change::Leaf(*id),
            };
            (name.clone(), change)
        });
        ChangedDirectory { metadata: directory.metadata.clone(), entries: entries.collect() }
    }

    fn count(&self) -> u64 {
        let below = self.entries.values().map(|change| match change {
            Change::Directory(directory) => directory.count(),
            Change::Leaf(_) | Change::Removed => 0,
        });
        self.entries.len() as u64 + below.sum::<u64>()
    }
}
