//! What makes one version of another.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::layered::{Links, Node, View};
use crate::replace::Renumbered;
use crate::tree::split_last;
use crate::{Change, ChangedDirectory, Delta, Layered, Leaf, LeafId};

/// A leaf: its layer and its number there.
type Key = (usize, LeafId);

/// The delta that makes `new` of `old`. What only lies in layers that both have from below, the same in memory, is not
/// looked at.
pub fn diff(old: &Layered, new: &Layered) -> Delta {
    let mut differing = Differing {
        old,
        new,
        old_links: Links::new(old),
        new_links: Links::new(new),
        numbers: Renumbered::new(),
        leaves: Vec::new(),
        linked: HashSet::new(),
        perhaps: Vec::new(),
    };
    let mut root = ChangedDirectory::new(new.root().metadata().clone());
    root.entries = differing.entries(&old.root(), &new.root());
    differing.settle_links(&mut root);
    let mut delta = Delta { root, leaves: differing.leaves };
    delta.renumber();
    delta
}

struct Differing<'a> {
    old: &'a Layered,
    new: &'a Layered,
    old_links: Links<'a>,
    new_links: Links<'a>,
    numbers: Renumbered<Key>,
    leaves: Vec<Leaf>,
    /// Leaves of `new` that are in the delta and have several names.
    linked: HashSet<Key>,
    /// Leaves that are alike, in `old` and in `new`, but may be linked with others.
    perhaps: Vec<(Key, Key)>,
}

impl<'a> Differing<'a> {
    fn entries(&mut self, old: &View<'a>, new: &View<'a>) -> BTreeMap<Box<[u8]>, Change> {
        let mut changes = BTreeMap::new();
        for name in candidates(old, new) {
            let change = match (old.child(&name), new.child(&name)) {
                (None, None) => None,
                (Some(_), None) => Some(Change::Removed),
                (Some(Node::Leaf(before)), Some(Node::Leaf(after))) if self.is_alike(before, after) => None,
                (_, Some(Node::Leaf(after))) => self.leaf(after),
                (Some(Node::Directory(before)), Some(Node::Directory(after))) => {
                    let entries = self.entries(&before, &after);
                    let changed = !entries.is_empty() || before.metadata() != after.metadata();
                    let metadata = after.metadata().clone();
                    changed.then(|| Change::Directory(Box::new(ChangedDirectory { metadata, entries })))
                }
                (None | Some(Node::Leaf(_)), Some(Node::Directory(after))) => {
                    Some(Change::Directory(Box::new(self.whole(&after))))
                }
            };
            if let Some(change) = change {
                changes.insert(name, change);
            }
        }
        changes
    }

    fn leaf(&mut self, key: Key) -> Option<Change> {
        let leaf = self.new.leaf(key)?;
        if self.new_links.has_several(key) {
            self.linked.insert(key);
        }
        Some(Change::Leaf(self.numbers.copy(key, leaf, &mut self.leaves)))
    }

    fn whole(&mut self, view: &View<'_>) -> ChangedDirectory {
        let mut directory = ChangedDirectory::new(view.metadata().clone());
        for (name, node) in view.entries() {
            let change = match node {
                Node::Directory(view) => Some(Change::Directory(Box::new(self.whole(&view)))),
                Node::Leaf(key) => self.leaf(key),
            };
            directory.entries.extend(change.map(|change| (name.clone(), change)));
        }
        directory
    }

    /// Whether two leaves of one path are the same, as far as can be told from them.
    fn is_alike(&mut self, before: Key, after: Key) -> bool {
        if before.1 == after.1 && self.is_same_layer(before.0, after.0) {
            return true;
        }
        let alike = self.old.leaf(before) == self.new.leaf(after);
        if alike && (self.old_links.has_several(before) || self.new_links.has_several(after)) {
            self.perhaps.push((before, after));
        }
        alike
    }

    fn is_same_layer(&self, before: usize, after: usize) -> bool {
        match (before.checked_sub(1), after.checked_sub(1)) {
            (None, None) => Arc::ptr_eq(&self.old.base, &self.new.base),
            (Some(before), Some(after)) => match (self.old.deltas.get(before), self.new.deltas.get(after)) {
                (Some(before), Some(after)) => Arc::ptr_eq(before, after),
                _ => false,
            },
            _ => false,
        }
    }

    /// Adds leaves of which only the links changed, and gives every leaf of the delta all of its names.
    fn settle_links(&mut self, root: &mut ChangedDirectory) {
        if self.perhaps.is_empty() && self.linked.is_empty() {
            return;
        }
        let old_keys = self.perhaps.iter().map(|(before, _)| *before).collect();
        let new_keys =
            self.perhaps.iter().map(|(_, after)| *after).chain(self.linked.iter().copied()).collect();
        let (before, after) = (names(self.old, &old_keys), names(self.new, &new_keys));
        for (old, new) in std::mem::take(&mut self.perhaps) {
            if before.get(&old) != after.get(&new) {
                self.linked.insert(new);
            }
        }
        for key in std::mem::take(&mut self.linked) {
            let Some(Change::Leaf(id)) = self.leaf(key) else { continue };
            for path in after.get(&key).into_iter().flatten() {
                self.put_name(root, path, id);
            }
        }
    }

    /// Makes a path of `new` a name of a leaf of the delta.
    fn put_name(&self, root: &mut ChangedDirectory, path: &[u8], id: LeafId) {
        let Ok((parents, name)) = split_last(path) else { return };
        let mut view = self.new.root();
        let mut directory = root;
        for parent in parents {
            let Some(Node::Directory(next)) = view.child(parent) else { return };
            view = next;
            directory = directory.directory(parent.into(), || ChangedDirectory::new(view.metadata().clone()));
        }
        directory.entries.insert(name.into(), Change::Leaf(id));
    }
}

fn names(layered: &Layered, keys: &HashSet<Key>) -> HashMap<Key, BTreeSet<Vec<u8>>> {
    let mut names: HashMap<Key, BTreeSet<Vec<u8>>> = HashMap::new();
    for (path, key) in layered.names_of_each(keys) {
        names.entry(key).or_default().insert(path);
    }
    names
}

/// The names of which something can differ.
fn candidates<'a>(old: &View<'a>, new: &View<'a>) -> BTreeSet<Box<[u8]>> {
    let ((old_tree, old_deltas), (new_tree, new_deltas)) = (old.parts(), new.parts());
    let same_tree = match (old_tree, new_tree) {
        (Some(old), Some(new)) => std::ptr::eq(old, new),
        (None, None) => true,
        _ => false,
    };
    if !same_tree {
        return old.entries().chain(new.entries()).map(|(name, _)| name.clone()).collect();
    }
    let pairs = old_deltas.iter().zip(new_deltas);
    let same = pairs.take_while(|((_, old), (_, new))| std::ptr::eq(*old, *new)).count();
    let others = old_deltas.iter().skip(same).chain(new_deltas.iter().skip(same));
    others.flat_map(|(_, directory)| directory.entries.keys().cloned()).collect()
}
