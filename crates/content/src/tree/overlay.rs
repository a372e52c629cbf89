//! One tree over another, and parts of trees as trees.

use std::collections::HashMap;

use super::{Directory, Entry, Leaf, LeafId, Tree};

/// Numbers of leaves of one tree, as they are in another.
struct Renumbered<'a> {
    from: &'a [Leaf],
    numbers: HashMap<LeafId, LeafId>,
}

impl Renumbered<'_> {
    /// Copies a leaf on its first use; later uses are links to that copy.
    fn copy(&mut self, id: LeafId, into: &mut Vec<Leaf>) -> Option<LeafId> {
        if let Some(known) = self.numbers.get(&id) {
            return Some(*known);
        }
        let leaf = self.from.get(id.0 as usize)?.clone();
        let copied = LeafId(into.len() as u32);
        into.push(leaf);
        self.numbers.insert(id, copied);
        Some(copied)
    }
}

impl Tree {
    /// Lays `upper` over this tree, as one layer over another.
    ///
    /// Directories that both have are merged and get the metadata of `upper`, the root too.
    /// Everything else of `upper` replaces what has its name. Hard links within each tree stay.
    pub fn overlay(&mut self, upper: &Tree) {
        let mut renumbered = Renumbered { from: &upper.leaves, numbers: HashMap::new() };
        lay(&mut self.root, &mut self.leaves, &upper.root, &mut renumbered);
    }

    /// The directory at `path` as a tree of its own; `None` if there is no such directory.
    pub fn subtree(&self, path: &[u8]) -> Option<Tree> {
        let source = self.directory(path)?;
        let mut tree = Tree::default();
        let mut renumbered = Renumbered { from: &self.leaves, numbers: HashMap::new() };
        lay(&mut tree.root, &mut tree.leaves, source, &mut renumbered);
        Some(tree)
    }
}

fn lay(into: &mut Directory, leaves: &mut Vec<Leaf>, upper: &Directory, renumbered: &mut Renumbered<'_>) {
    into.metadata = upper.metadata.clone();
    for (name, entry) in &upper.entries {
        match entry {
            Entry::Leaf(id) => {
                if let Some(id) = renumbered.copy(*id, leaves) {
                    into.entries.insert(name.clone(), Entry::Leaf(id));
                }
            }
            Entry::Directory(directory) => {
                let place = into
                    .entries
                    .entry(name.clone())
                    .and_modify(|entry| {
                        if matches!(entry, Entry::Leaf(_)) {
                            *entry = empty(directory);
                        }
                    })
                    .or_insert_with(|| empty(directory));
                if let Entry::Directory(place) = place {
                    lay(place, leaves, directory, renumbered);
                }
            }
        }
    }
}

fn empty(like: &Directory) -> Entry {
    Entry::Directory(Box::new(Directory::new(like.metadata.clone())))
}
