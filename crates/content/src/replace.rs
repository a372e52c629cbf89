//! Directories that stand in the place of others, as deltas say it: name by name.

use std::collections::HashMap;

use crate::layered::{Node, View};
use crate::{Change, ChangedDirectory, Leaf, LeafId, Metadata};

/// A new directory where `below` is: nothing of that shows through.
pub(crate) fn fresh(metadata: Metadata, below: Option<&View<'_>>) -> ChangedDirectory {
    let mut directory = ChangedDirectory::new(metadata);
    hide(&mut directory, below);
    directory
}

/// Makes a directory with all its content stand over `below` with nothing of that showing through. `Removed` in it is
/// said anew.
pub(crate) fn hide(directory: &mut ChangedDirectory, below: Option<&View<'_>>) {
    directory.entries.retain(|_, change| !matches!(change, Change::Removed));
    for (name, change) in &mut directory.entries {
        if let Change::Directory(inner) = change {
            hide(inner, child_directory(below, name).as_ref());
        }
    }
    for (name, _) in below.into_iter().flat_map(View::entries) {
        directory.entries.entry(name.clone()).or_insert(Change::Removed);
    }
}

/// Drops directories in which nothing changes.
pub(crate) fn drop_unchanged(directory: &mut ChangedDirectory, below: Option<&View<'_>>) {
    directory.entries.retain(|name, change| {
        let Change::Directory(inner) = change else { return true };
        let below = child_directory(below, name);
        drop_unchanged(inner, below.as_ref());
        !inner.entries.is_empty() || below.is_none_or(|below| *below.metadata() != inner.metadata)
    });
}

/// The directory of this name, if that is what shows.
pub(crate) fn child_directory<'a>(view: Option<&View<'a>>, name: &[u8]) -> Option<View<'a>> {
    match view?.child(name)? {
        Node::Directory(view) => Some(view),
        Node::Leaf(_) => None,
    }
}

/// Leaves of one table, as they are numbered in another.
#[derive(Debug)]
pub(crate) struct Renumbered<K> {
    numbers: HashMap<K, LeafId>,
}

impl<K: std::hash::Hash + Eq> Renumbered<K> {
    pub(crate) fn new() -> Renumbered<K> {
        Renumbered { numbers: HashMap::new() }
    }

    /// Copies a leaf on its first use; later uses are links to that copy.
    pub(crate) fn copy(&mut self, key: K, leaf: &Leaf, into: &mut Vec<Leaf>) -> LeafId {
        *self.numbers.entry(key).or_insert_with(|| {
            into.push(leaf.clone());
            LeafId(into.len() as u32 - 1)
        })
    }
}
