//! A change that was made beside others, as a change to what they made: `docs/volume-merging.md` has every case.

mod kept;
mod three_way;
mod trail;

use std::collections::{HashMap, HashSet};

use crate::layered::{Links, Node, View, several_names};
use crate::replace::drop_unchanged;
use crate::{Change, ChangedDirectory, Delta, Layered, Leaf, LeafId};
use kept::{Kept, clear};
use trail::Trail;

/// A version that came between what a change was made against and what it is to be put on.
#[derive(Debug, Clone, Copy)]
pub struct Foreign<'a> {
    /// Its number.
    pub version: u64,
    /// What it changed in the version before it.
    pub delta: &'a Delta,
    /// Whether it is an earlier change of the same maker: what that did is part of what he saw.
    pub own: bool,
}

/// Two changed one path, and one of them is not in the result.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// The path, without a leading slash.
    pub path: Vec<u8>,
    /// The version of which something lost at this path; it has it still.
    pub lost_version: u64,
    /// Whether what lost was a removal.
    pub lost_removed: bool,
}

/// What [`merge`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// The change to `head`; empty and with the root's metadata if there is nothing to do.
    pub delta: Delta,
    /// In the order of the paths.
    pub conflicts: Vec<Conflict>,
}

/// Makes `ours`, a change to `seen`, a change to `head`.
///
/// `head` is the version that `seen` came from, with `since` done to it in order; `seen` may also hold those of `since`
/// that are `own`. Different paths are merged. Where both changed a path, ours is taken and the conflict is said.
/// Its cost is in the changes, not in what they are made to.
pub fn merge(seen: &Layered, head: &Layered, ours: &Delta, since: &[Foreign<'_>]) -> Merged {
    let mut merging = Merging {
        seen,
        head,
        ours,
        seen_links: Links::new(seen),
        several: several_names(ours),
        leaves: Vec::new(),
        numbers: HashMap::new(),
        conflicts: Vec::new(),
    };
    let (seen, head) = (seen.root(), head.root());
    let trail = Trail::new(since);
    let mut root = merging.directory(&ours.root, Some(&seen), Some(&head), &trail, &mut Vec::new());
    drop_unchanged(&mut root, Some(&head));
    let mut delta = Delta { root, leaves: merging.leaves };
    delta.renumber();
    merging.conflicts.sort();
    Merged { delta, conflicts: merging.conflicts }
}

struct Merging<'a> {
    seen: &'a Layered,
    head: &'a Layered,
    ours: &'a Delta,
    seen_links: Links<'a>,
    /// Leaves of ours with several names.
    several: HashSet<LeafId>,
    leaves: Vec<Leaf>,
    /// What became of a leaf of ours. One whose names had different fates is more than one.
    numbers: HashMap<LeafId, Vec<LeafId>>,
    conflicts: Vec<Conflict>,
}

impl<'a> Merging<'a> {
    /// A directory that is there after ours. What isn't a directory in `seen` or `head` is `None` there.
    fn directory(
        &mut self,
        ours: &'a ChangedDirectory,
        seen: Option<&View<'a>>,
        head: Option<&View<'a>>,
        trail: &Trail<'a>,
        path: &mut Vec<u8>,
    ) -> ChangedDirectory {
        let mut merged = ChangedDirectory::new(ours.metadata.clone());
        if let Some(head) = head {
            let seen = seen.map(View::metadata);
            let settled = three_way::directory(seen, head.metadata(), &ours.metadata);
            if settled.conflict {
                self.conflict(path, trail.last_metadata(head.metadata()), false);
            }
            merged.metadata = settled.value;
        }
        let length = path.len();
        for (name, change) in &ours.entries {
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            let seen = seen.and_then(|view| view.child(name));
            let head = head.and_then(|view| view.child(name));
            let change = match change {
                Change::Removed => self.removed(seen, head, &trail.child(name), path),
                Change::Leaf(id) => self.leaf(*id, seen, head, &trail.child(name), path),
                Change::Directory(directory) => {
                    self.over_anything(directory, seen, head, &trail.child(name), path)
                }
            };
            merged.entries.extend(change.map(|change| (name.clone(), change)));
            path.truncate(length);
        }
        merged
    }

    /// Ours has a directory here, whatever the others have.
    fn over_anything(
        &mut self,
        ours: &'a ChangedDirectory,
        seen: Option<Node<'a>>,
        head: Option<Node<'a>>,
        trail: &Trail<'a>,
        path: &mut Vec<u8>,
    ) -> Option<Change> {
        let (seen_leaf, seen) = split(seen);
        let (head_leaf, head) = split(head);
        let known = self.conflicts.len();
        let merged = self.directory(ours, seen.as_ref(), head.as_ref(), trail, path);
        if head.is_none() {
            // Theirs removed or replaced a directory: it comes back for what ours put into it, not for itself.
            if seen.is_some() && merged.entries.is_empty() {
                return None;
            }
            if let Some(theirs) = head_leaf
                && !self.is_as_seen(seen_leaf, theirs)
            {
                self.conflicts.truncate(known);
                self.conflict(path, trail.last(), false);
            }
        }
        Some(Change::Directory(Box::new(merged)))
    }

    /// Ours has a leaf here.
    fn leaf(
        &mut self,
        id: LeafId,
        seen: Option<Node<'a>>,
        head: Option<Node<'a>>,
        trail: &Trail<'a>,
        path: &[u8],
    ) -> Option<Change> {
        let ours = self.ours.leaf(id)?;
        let before = match &seen {
            Some(Node::Leaf(key)) => self.seen.leaf(*key).map(|leaf| (*key, leaf)),
            _ => None,
        };
        let unchanged = before.is_some_and(|(_, before)| three_way::same_leaf_but_time(before, ours));
        let merged = match head {
            Some(Node::Leaf(theirs)) => {
                return self.two_leaves(id, before, self.head.leaf(theirs)?, trail, path);
            }
            // Theirs removed or replaced what ours did not really change.
            None | Some(Node::Directory(_)) if unchanged => return None,
            None => {
                if before.is_some() {
                    self.conflict(path, trail.last(), true);
                }
                ours
            }
            Some(Node::Directory(head)) => {
                let lost = match &seen {
                    Some(Node::Directory(seen)) => !matches!(self.kept(seen, &head, trail), Kept::Nothing),
                    Some(Node::Leaf(_)) | None => true,
                };
                if lost {
                    self.conflict(path, trail.last(), false);
                }
                ours
            }
        };
        Some(Change::Leaf(self.number(id, merged.clone())))
    }

    fn two_leaves(
        &mut self,
        id: LeafId,
        before: Option<((usize, LeafId), &'a Leaf)>,
        theirs: &'a Leaf,
        trail: &Trail<'a>,
        path: &[u8],
    ) -> Option<Change> {
        let ours = self.ours.leaf(id)?;
        let ours_is_old = before.is_some_and(|(_, before)| before == ours);
        if ours_is_old && theirs != ours {
            return None;
        }
        if theirs == ours && !self.several.contains(&id) {
            // Nothing to do, unless what ours did was to part this name from others.
            let parted =
                before.is_some_and(|(key, before)| before == ours && self.seen_links.has_several(key));
            return parted.then(|| Change::Leaf(self.number(id, ours.clone())));
        }
        let settled = three_way::leaf(before.map(|(_, before)| before), theirs, ours);
        if settled.conflict {
            self.conflict(path, trail.last(), false);
        }
        if settled.value == *theirs && !self.several.contains(&id) {
            return None;
        }
        Some(Change::Leaf(self.number(id, settled.value)))
    }

    /// Ours has nothing here.
    fn removed(
        &mut self,
        seen: Option<Node<'a>>,
        head: Option<Node<'a>>,
        trail: &Trail<'a>,
        path: &[u8],
    ) -> Option<Change> {
        match (seen?, head?) {
            (Node::Leaf(seen), Node::Leaf(head)) => {
                if !self.is_as_seen(Some(seen), head) {
                    self.conflict(path, trail.last(), false);
                }
                Some(Change::Removed)
            }
            // What ours removed, theirs had removed as well, and put something new there.
            (Node::Leaf(_), Node::Directory(_)) | (Node::Directory(_), Node::Leaf(_)) => None,
            (Node::Directory(seen), Node::Directory(head)) => match self.kept(&seen, &head, trail) {
                Kept::Nothing => Some(Change::Removed),
                Kept::All => None,
                Kept::Some(kept) => Some(Change::Directory(Box::new(clear(&head, &kept)))),
            },
        }
    }

    /// Whether a leaf of `head` is what was seen, but for the time.
    fn is_as_seen(&self, seen: Option<(usize, LeafId)>, head: (usize, LeafId)) -> bool {
        match (seen.and_then(|seen| self.seen.leaf(seen)), self.head.leaf(head)) {
            (Some(seen), Some(head)) => three_way::same_leaf_but_time(seen, head),
            _ => false,
        }
    }

    /// The number of what became of a leaf of ours: names with one fate stay linked.
    fn number(&mut self, ours: LeafId, merged: Leaf) -> LeafId {
        let numbers = self.numbers.entry(ours).or_default();
        let known = numbers.iter().find(|id| self.leaves.get(id.0 as usize) == Some(&merged));
        if let Some(known) = known {
            return *known;
        }
        let id = LeafId(self.leaves.len() as u32);
        self.leaves.push(merged);
        numbers.push(id);
        id
    }

    fn conflict(&mut self, path: &[u8], lost_version: u64, lost_removed: bool) {
        self.conflicts.push(Conflict { path: path.to_vec(), lost_version, lost_removed });
    }
}

fn split(node: Option<Node<'_>>) -> (Option<(usize, LeafId)>, Option<View<'_>>) {
    match node {
        Some(Node::Leaf(key)) => (Some(key), None),
        Some(Node::Directory(view)) => (None, Some(view)),
        None => (None, None),
    }
}
