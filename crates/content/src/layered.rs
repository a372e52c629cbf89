//! A tree with deltas over it, read as one tree without being made into one.

mod links;
mod view;
mod walk;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

pub(crate) use links::{Links, several_names};
pub(crate) use view::{Entries, Node, View};
pub use walk::WalkLayered;

use crate::{Change, Delta, Directory, Entry, EntryRef, Leaf, LeafId, LeafKind, Metadata, Tree};

/// The content of one version: a snapshot and the deltas over it.
///
/// Each delta applies to what is below it: directories merge, everything else replaces, `Removed` hides. A directory over
/// something that is no directory starts empty.
#[derive(Debug, Clone)]
pub struct Layered {
    /// Layer 0.
    pub base: Arc<Tree>,
    /// Layers 1 and up: the oldest first.
    pub deltas: Vec<Arc<Delta>>,
}

/// What shows at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen<'a> {
    /// A directory, with its metadata.
    Directory(&'a Metadata),
    /// Anything else. Names with one `layer` and `id` are hard links to one file.
    Leaf {
        /// Metadata and content.
        leaf: &'a Leaf,
        /// The layer that has it: 0 for the base, then the deltas from 1.
        layer: usize,
        /// Its number there.
        id: LeafId,
    },
}

impl<'a> Seen<'a> {
    /// The metadata of the directory or leaf.
    pub fn metadata(self) -> &'a Metadata {
        match self {
            Seen::Directory(metadata) => metadata,
            Seen::Leaf { leaf, .. } => &leaf.metadata,
        }
    }
}

impl Layered {
    /// A tree without deltas.
    pub fn of(base: Arc<Tree>) -> Layered {
        Layered { base, deltas: Vec::new() }
    }

    /// These layers with one more delta on top.
    #[must_use]
    pub fn with(&self, delta: Arc<Delta>) -> Layered {
        let mut layered = self.clone();
        layered.deltas.push(delta);
        layered
    }

    /// What is at `path`, without following symbolic links. The empty path is the root.
    pub fn get(&self, path: &[u8]) -> Option<Seen<'_>> {
        self.seen(&self.node(path)?)
    }

    /// The entries of the directory at `path`, in byte order of their names; `None` if there is no such directory.
    pub fn list(&self, path: &[u8]) -> Option<Vec<(Box<[u8]>, Seen<'_>)>> {
        let Node::Directory(view) = self.node(path)? else { return None };
        let entries = view.entries();
        Some(entries.filter_map(|(name, node)| Some((name.clone(), self.seen(&node)?))).collect())
    }

    /// All entries below the directory at `path`, found as the iterator goes, each directory before what is in it, in
    /// byte order of names. Paths are those from the root, without a leading slash. Nothing if there is no such directory.
    pub fn walk(&self, path: &[u8]) -> WalkLayered<'_> {
        WalkLayered::new(self, path)
    }

    /// All names that the leaf `id` of this layer has in the whole. Reads all of the layer.
    pub fn names_of(&self, layer: usize, id: LeafId) -> Vec<Vec<u8>> {
        let names = self.names_of_each(&HashSet::from([(layer, id)]));
        names.into_iter().map(|(path, _)| path).collect()
    }

    /// All names that these leaves have in the whole.
    pub(crate) fn names_of_each(&self, keys: &HashSet<(usize, LeafId)>) -> Vec<(Vec<u8>, (usize, LeafId))> {
        let layers: BTreeSet<usize> = keys.iter().map(|(layer, _)| *layer).collect();
        let mut names = Vec::new();
        for layer in layers {
            let mut named = |path: Vec<u8>, id: LeafId| {
                let key = (layer, id);
                // A layer above may have something else there.
                if keys.contains(&key) && matches!(self.node(&path), Some(Node::Leaf(shows)) if shows == key)
                {
                    names.push((path, key));
                }
            };
            match layer.checked_sub(1) {
                None => self.base.walk().for_each(|(path, entry)| {
                    if let EntryRef::Leaf(id, _) = entry {
                        named(path, id);
                    }
                }),
                Some(delta) => {
                    let delta = self.deltas.get(delta).into_iter();
                    delta.flat_map(|delta| delta.walk()).for_each(|(path, change)| {
                        if let Change::Leaf(id) = change {
                            named(path, *id);
                        }
                    });
                }
            }
        }
        names
    }

    /// Number of names of leaves, and bytes of all distinct regular files. Reads everything.
    pub fn totals(&self) -> (u64, u64) {
        let (mut names, mut bytes) = (0, 0_u64);
        let mut counted = HashSet::new();
        for (_, seen) in self.walk(b"") {
            let Seen::Leaf { leaf, layer, id } = seen else { continue };
            names += 1;
            if let (true, LeafKind::File(content)) = (counted.insert((layer, id)), &leaf.kind) {
                bytes = bytes.saturating_add(content.size());
            }
        }
        (names, bytes)
    }

    /// All layers as one tree.
    pub fn flatten(&self) -> Tree {
        let mut tree = Tree::new(self.root().metadata().clone());
        let mut numbers = HashMap::new();
        tree.root = self.flatten_directory(&self.root(), &mut tree.leaves, &mut numbers);
        tree
    }

    fn flatten_directory(
        &self,
        view: &View<'_>,
        leaves: &mut Vec<Leaf>,
        numbers: &mut HashMap<(usize, LeafId), LeafId>,
    ) -> Directory {
        let mut entries = Vec::new();
        for (name, node) in view.entries() {
            let entry = match node {
                Node::Directory(view) => {
                    Entry::Directory(Box::new(self.flatten_directory(&view, leaves, numbers)))
                }
                Node::Leaf(key) => {
                    let Some(leaf) = self.leaf(key) else { continue };
                    Entry::Leaf(*numbers.entry(key).or_insert_with(|| {
                        leaves.push(leaf.clone());
                        LeafId(leaves.len() as u32 - 1)
                    }))
                }
            };
            entries.push((name.clone(), entry));
        }
        Directory { metadata: view.metadata().clone(), entries: BTreeMap::from_iter(entries) }
    }

    pub(crate) fn root(&self) -> View<'_> {
        let deltas = self.deltas.iter().enumerate().map(|(index, delta)| (index + 1, &delta.root));
        View::new(Some(&self.base.root), deltas.collect())
    }

    pub(crate) fn leaf(&self, (layer, id): (usize, LeafId)) -> Option<&Leaf> {
        match layer.checked_sub(1) {
            None => self.base.leaf(id),
            Some(delta) => self.deltas.get(delta)?.leaf(id),
        }
    }

    pub(crate) fn node(&self, path: &[u8]) -> Option<Node<'_>> {
        self.root().at(path)
    }

    fn seen<'a>(&'a self, node: &Node<'a>) -> Option<Seen<'a>> {
        Some(match node {
            Node::Directory(view) => Seen::Directory(view.metadata()),
            Node::Leaf((layer, id)) => Seen::Leaf { leaf: self.leaf((*layer, *id))?, layer: *layer, id: *id },
        })
    }
}
