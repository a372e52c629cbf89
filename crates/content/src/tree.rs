//! Trees: directories, and leaves that directories share by number.

mod overlay;
mod path;
mod validate;
mod walk;

use std::collections::BTreeMap;

pub use path::PathError;
pub(crate) use path::{components, shown, split_last};
pub use validate::InvalidTree;
pub(crate) use validate::{kind_fault, metadata_fault, name_fault, refuse};
pub use walk::Walk;

use crate::{Digest, Metadata, SnapshotId, encoding};

/// Regular files of at most this many bytes are kept inside the tree.
///
/// The EROFS writer refuses larger inline contents.
pub const INLINE_LIMIT: usize = 512;

/// Deepest nesting of directories below the root.
///
/// Trees are walked by recursion here and in the EROFS writer; the limit bounds their stacks.
pub const MAX_DEPTH: usize = 1024;

/// The bytes of a regular file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileContent {
    /// The bytes themselves, at most [`INLINE_LIMIT`].
    Inline(Box<[u8]>),
    /// An object in the store.
    Object {
        /// Digest of the bytes.
        digest: Digest,
        /// Number of bytes.
        size: u64,
    },
}

impl FileContent {
    /// Number of bytes of the file.
    pub fn size(&self) -> u64 {
        match self {
            FileContent::Inline(bytes) => bytes.len() as u64,
            FileContent::Object { size, .. } => *size,
        }
    }
}

/// What a leaf is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeafKind {
    /// A regular file.
    File(FileContent),
    /// A symbolic link with its target.
    Symlink(Box<[u8]>),
    /// A named pipe.
    Fifo,
    /// A character device with its number, as in `st_rdev`.
    CharDevice(u64),
    /// A block device with its number, as in `st_rdev`.
    BlockDevice(u64),
}

/// Anything but a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Leaf {
    /// Mode, owner, time, attributes.
    pub metadata: Metadata,
    /// Type and content.
    pub kind: LeafKind,
}

/// Index into [`Tree::leaves`]. Two entries with one id are hard links to one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafId(pub u32);

/// What a name in a directory stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A directory with all that is below it.
    Directory(Box<Directory>),
    /// A leaf of the tree's table.
    Leaf(LeafId),
}

/// A directory: its own metadata and its entries in byte order of their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Mode, owner, time, attributes.
    pub metadata: Metadata,
    /// Entries by name.
    pub entries: BTreeMap<Box<[u8]>, Entry>,
}

impl Directory {
    /// An empty directory.
    pub fn new(metadata: Metadata) -> Directory {
        Directory { metadata, entries: BTreeMap::new() }
    }
}

/// A snapshot's content.
///
/// `==` compares the leaf tables too, so it tells apart trees that differ only in numbering;
/// compare [`Tree::id`]s to compare contents. `leaves` may hold entries that no directory names
/// any more (after [`Tree::remove`]); they are not part of the content and are never encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The root directory.
    pub root: Directory,
    /// The leaves, by [`LeafId`].
    pub leaves: Vec<Leaf>,
}

/// A borrowed entry together with its leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryRef<'a> {
    /// A directory.
    Directory(&'a Directory),
    /// A leaf and its number.
    Leaf(LeafId, &'a Leaf),
}

impl<'a> EntryRef<'a> {
    /// The metadata of the directory or leaf.
    pub fn metadata(self) -> &'a Metadata {
        match self {
            EntryRef::Directory(directory) => &directory.metadata,
            EntryRef::Leaf(_, leaf) => &leaf.metadata,
        }
    }
}

impl Default for Tree {
    fn default() -> Tree {
        Tree::new(Metadata::with_mode(0o755))
    }
}

impl Tree {
    /// An empty tree whose root has this metadata.
    pub fn new(root: Metadata) -> Tree {
        Tree { root: Directory::new(root), leaves: Vec::new() }
    }

    /// The canonical bytes of the tree, see [`encoding`].
    ///
    /// A tree that [`Tree::validate`] refuses may give bytes that do not decode.
    pub fn encode(&self) -> Vec<u8> {
        encoding::encode(self)
    }

    /// The tree with these canonical bytes; every other input is refused.
    pub fn decode(bytes: &[u8]) -> Result<Tree, encoding::DecodeError> {
        encoding::decode(bytes)
    }

    /// The digest of the canonical bytes.
    pub fn id(&self) -> SnapshotId {
        Digest::of(&self.encode())
    }

    /// The leaf with this number.
    pub fn leaf(&self, id: LeafId) -> Option<&Leaf> {
        self.leaves.get(id.0 as usize)
    }

    /// Adds a leaf to the table. It is part of the tree once an entry names it.
    pub fn push_leaf(&mut self, leaf: Leaf) -> LeafId {
        // A tree of 2^32 leaves does not fit in memory before the number wraps.
        let id = LeafId(self.leaves.len() as u32);
        self.leaves.push(leaf);
        id
    }

    /// Number of directories (the root included), of names of leaves, and bytes of all
    /// distinct regular files.
    pub fn totals(&self) -> (u64, u64, u64) {
        let (mut directories, mut names, mut bytes) = (1, 0, 0_u64);
        let mut counted = vec![false; self.leaves.len()];
        for (_, entry) in self.walk() {
            let EntryRef::Leaf(id, leaf) = entry else {
                directories += 1;
                continue;
            };
            names += 1;
            let first = !std::mem::replace(&mut counted[id.0 as usize], true);
            if let (true, LeafKind::File(content)) = (first, &leaf.kind) {
                bytes = bytes.saturating_add(content.size());
            }
        }
        (directories, names, bytes)
    }
}
