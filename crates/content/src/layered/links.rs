//! Which leaves have several names.

use std::cell::OnceCell;
use std::collections::HashSet;

use super::Layered;
use crate::{Change, ChangedDirectory, Delta, Directory, Entry, LeafId};

/// The leaves of each layer that have more than one name in it. A layer is looked through when it is first asked about.
#[derive(Debug)]
pub(crate) struct Links<'a> {
    layered: &'a Layered,
    layers: Vec<OnceCell<HashSet<LeafId>>>,
}

impl<'a> Links<'a> {
    pub(crate) fn new(layered: &'a Layered) -> Links<'a> {
        let layers = (0..=layered.deltas.len()).map(|_| OnceCell::new()).collect();
        Links { layered, layers }
    }

    /// Whether the leaf has more than one name in its layer, some of which may not show.
    pub(crate) fn has_several(&self, (layer, id): (usize, LeafId)) -> bool {
        let Some(cell) = self.layers.get(layer) else { return false };
        cell.get_or_init(|| match layer.checked_sub(1).and_then(|delta| self.layered.deltas.get(delta)) {
            Some(delta) => several_names(delta),
            None => {
                let mut names = Names::of(self.layered.base.leaves.len());
                names.in_tree(&self.layered.base.root);
                names.several
            }
        })
        .contains(&id)
    }
}

/// The leaves of a delta that have more than one name in it.
pub(crate) fn several_names(delta: &Delta) -> HashSet<LeafId> {
    let mut names = Names::of(delta.leaves.len());
    names.in_delta(&delta.root);
    names.several
}

struct Names {
    one: Vec<bool>,
    several: HashSet<LeafId>,
}

impl Names {
    fn of(leaves: usize) -> Names {
        Names { one: vec![false; leaves], several: HashSet::new() }
    }

    fn name(&mut self, id: LeafId) {
        if let Some(one) = self.one.get_mut(id.0 as usize)
            && std::mem::replace(one, true)
        {
            self.several.insert(id);
        }
    }

    fn in_tree(&mut self, directory: &Directory) {
        for entry in directory.entries.values() {
            match entry {
                Entry::Directory(directory) => self.in_tree(directory),
                Entry::Leaf(id) => self.name(*id),
            }
        }
    }

    fn in_delta(&mut self, directory: &ChangedDirectory) {
        for change in directory.entries.values() {
            match change {
                Change::Directory(directory) => self.in_delta(directory),
                Change::Leaf(id) => self.name(*id),
                Change::Removed => {}
            }
        }
    }
}
