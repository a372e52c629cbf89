//! What stays of a directory that one side removed: what the other side had meanwhile added or changed in it.

use std::collections::BTreeMap;

use super::trail::Trail;
use super::{Merging, three_way};
use crate::layered::{Node, View};
use crate::{Change, ChangedDirectory};

/// What stays.
pub(super) enum Kept<'a> {
    Nothing,
    /// The whole entry.
    All,
    /// Of a directory, what is in these.
    Some(BTreeMap<&'a [u8], Kept<'a>>),
}

impl<'a> Merging<'a> {
    /// What there is in a directory of `head` that was not seen like this. Only what the versions in between touched is
    /// looked at.
    pub(super) fn kept(&self, seen: &View<'a>, head: &View<'a>, trail: &Trail<'a>) -> Kept<'a> {
        let mut some = BTreeMap::new();
        for name in trail.names() {
            let kept = match (seen.child(name), head.child(name)) {
                (_, None) => Kept::Nothing,
                (Some(Node::Leaf(seen)), Some(Node::Leaf(head))) => {
                    match (self.seen.leaf(seen), self.head.leaf(head)) {
                        (Some(seen), Some(head)) if three_way::same_leaf_but_time(seen, head) => {
                            Kept::Nothing
                        }
                        _ => Kept::All,
                    }
                }
                (Some(Node::Directory(seen)), Some(Node::Directory(head))) => {
                    self.kept(&seen, &head, &trail.child(name))
                }
                (_, Some(_)) => Kept::All,
            };
            if !matches!(kept, Kept::Nothing) {
                some.insert(name, kept);
            }
        }
        if some.is_empty() { Kept::Nothing } else { Kept::Some(some) }
    }
}

/// Removes all but what is kept.
pub(super) fn clear(head: &View<'_>, kept: &BTreeMap<&[u8], Kept<'_>>) -> ChangedDirectory {
    let mut directory = ChangedDirectory::new(head.metadata().clone());
    for (name, node) in head.entries() {
        let change = match (kept.get(name.as_ref()), node) {
            (Some(Kept::Some(kept)), Node::Directory(view)) => {
                Change::Directory(Box::new(clear(&view, kept)))
            }
            (Some(Kept::All | Kept::Some(_)), _) => continue,
            (Some(Kept::Nothing) | None, _) => Change::Removed,
        };
        directory.entries.insert(name.clone(), change);
    }
    directory
}
