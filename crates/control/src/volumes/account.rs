//! What a change means in numbers, found from the change alone: nothing is counted that didn't change.

use std::collections::{HashMap, HashSet};

use homeport_content::{Change, Delta, EntryRef, Layered, Leaf, LeafId, LeafKind, Seen, Tree};

/// Files with several names that are looked at one by one; with more of them everything is counted anew.
const FEW: usize = 4;

/// The files of a tree that have several names.
#[derive(Debug, Default)]
pub(super) struct Links {
    linked: HashSet<LeafId>,
    /// Names in the tree, directories among them.
    pub(super) names: u64,
}

impl Links {
    /// Those of a tree.
    pub(super) fn of(tree: &Tree) -> Self {
        let (mut seen, mut links) = (HashSet::new(), Self::default());
        for (_, entry) in tree.walk() {
            links.names += 1;
            if let EntryRef::Leaf(id, _) = entry
                && !seen.insert(id)
            {
                links.linked.insert(id);
            }
        }
        links
    }

    fn of_delta(delta: &Delta) -> Self {
        let (mut seen, mut links) = (HashSet::new(), Self::default());
        for (_, change) in delta.walk() {
            if let Change::Leaf(id) = change
                && !seen.insert(*id)
            {
                links.linked.insert(*id);
            }
        }
        links
    }
}

/// The numbers of a change. Directories are not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) added: u64,
    pub(super) changed: u64,
    pub(super) removed: u64,
    /// Names of the version after the change.
    pub(super) files: u64,
    /// Bytes of the version after the change.
    pub(super) bytes: u64,
}

impl Account {
    /// The numbers of `delta`, which is made on top of `head`; `before` are the names and bytes of `head`.
    pub(super) fn of(head: &Layered, links: &Links, delta: &Delta, before: (u64, u64)) -> Self {
        let mut count = Count { head, lost: HashMap::new(), account: Self::default() };
        let mut kept = HashSet::new();
        let mut gained = 0_u64;
        for (path, change) in delta.walk() {
            match change {
                Change::Removed => count.lose(&path),
                Change::Directory(_) => {
                    if let Some(Seen::Leaf { .. }) = head.get(&path) {
                        count.lose(&path);
                    }
                }
                Change::Leaf(id) => {
                    match head.get(&path) {
                        Some(Seen::Leaf { leaf, layer, id }) => {
                            count.account.changed += 1;
                            count.lose_name(layer, id, leaf);
                        }
                        Some(Seen::Directory(_)) => {
                            count.lose(&path);
                            count.account.added += 1;
                        }
                        None => count.account.added += 1,
                    }
                    if kept.insert(*id) {
                        gained += delta.leaf(*id).map_or(0, size);
                    }
                }
            }
        }
        let mut account = count.account;
        account.files = (before.0 + account.added).saturating_sub(account.removed);
        match count.lost_bytes(links) {
            Some(lost) => account.bytes = (before.1 + gained).saturating_sub(lost),
            None => {
                let after = head.with(std::sync::Arc::new(delta.clone()));
                (account.files, account.bytes) = after.totals();
            }
        }
        account
    }
}

struct Count<'a> {
    head: &'a Layered,
    /// By layer and number: bytes, and names that are gone.
    lost: HashMap<(usize, LeafId), (u64, usize)>,
    account: Account,
}

impl Count<'_> {
    /// The name at `path` and all that is below it are gone.
    fn lose(&mut self, path: &[u8]) {
        let head = self.head;
        let below = head.walk(path).map(|(_, seen)| seen);
        for seen in head.get(path).into_iter().chain(below) {
            if let Seen::Leaf { leaf, layer, id } = seen {
                self.account.removed += 1;
                self.lose_name(layer, id, leaf);
            }
        }
    }

    fn lose_name(&mut self, layer: usize, id: LeafId, leaf: &Leaf) {
        self.lost.entry((layer, id)).or_insert((size(leaf), 0)).1 += 1;
    }

    /// Bytes of the files that have no name any more; none if that is better found by counting everything.
    fn lost_bytes(&self, base: &Links) -> Option<u64> {
        let mut of_deltas: HashMap<usize, Links> = HashMap::new();
        let (mut bytes, mut looked_at) = (0_u64, 0);
        for ((layer, id), (size, names)) in &self.lost {
            let is_linked = match layer.checked_sub(1) {
                None => base.linked.contains(id),
                Some(index) => {
                    let delta = self.head.deltas.get(index)?;
                    of_deltas.entry(*layer).or_insert_with(|| Links::of_delta(delta)).linked.contains(id)
                }
            };
            if is_linked {
                looked_at += 1;
                if looked_at > FEW {
                    return None;
                }
                if self.head.names_of(*layer, *id).len() > *names {
                    continue;
                }
            }
            bytes += size;
        }
        Some(bytes)
    }
}

fn size(leaf: &Leaf) -> u64 {
    match &leaf.kind {
        LeafKind::File(content) => content.size(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

    use std::sync::Arc;

    use homeport_content::{ChangedDirectory, FileContent, Metadata};

    use super::*;

    fn file(size: usize) -> Leaf {
        let content = FileContent::Inline(vec![b'x'; size].into());
        Leaf { metadata: Metadata::with_mode(0o644), kind: LeafKind::File(content) }
    }

    fn delta(changes: &[(&str, Option<usize>)]) -> Delta {
        let mut delta = Delta::new(Metadata::with_mode(0o755));
        for (name, size) in changes {
            let change = match size {
                Some(size) => Change::Leaf(delta.push_leaf(file(*size))),
                None => Change::Removed,
            };
            delta.root.entries.insert(name.as_bytes().into(), change);
        }
        delta
    }

    fn check(head: &Layered, delta: Delta) -> Account {
        let links = Links::of(&head.base);
        let account = Account::of(head, &links, &delta, head.totals());
        assert_eq!((account.files, account.bytes), head.with(Arc::new(delta)).totals());
        account
    }

    #[test]
    fn what_comes_and_goes_is_counted() {
        let head = Layered::of(Arc::new(Tree::default()));
        let account = check(&head, delta(&[("a", Some(3)), ("b", Some(5))]));
        assert_eq!((account.added, account.files, account.bytes), (2, 2, 8));
        let head = head.with(Arc::new(delta(&[("a", Some(3)), ("b", Some(5))])));
        let account = check(&head, delta(&[("a", Some(1)), ("b", None), ("c", Some(2))]));
        assert_eq!((account.added, account.changed, account.removed, account.bytes), (1, 1, 1, 3));
    }

    #[test]
    fn a_directory_that_goes_takes_its_files_along() {
        let mut first = delta(&[("top", Some(7))]);
        let mut directory = ChangedDirectory::new(Metadata::with_mode(0o755));
        for name in ["x", "y"] {
            let id = first.push_leaf(file(4));
            directory.entries.insert(name.as_bytes().into(), Change::Leaf(id));
        }
        first.root.entries.insert(b"dir"[..].into(), Change::Directory(Box::new(directory)));
        let head = Layered::of(Arc::new(Tree::default())).with(Arc::new(first));
        assert_eq!(check(&head, delta(&[("dir", None)])).removed, 2);
        let account = check(&head, delta(&[("dir", Some(1))]));
        assert_eq!((account.added, account.removed, account.files), (1, 2, 2));
    }

    #[test]
    fn the_bytes_of_a_file_stay_as_long_as_one_of_its_names() {
        let mut tree = Tree::default();
        let id = tree.push_leaf(file(9));
        for name in ["a", "b"] {
            tree.root.entries.insert(name.as_bytes().into(), homeport_content::Entry::Leaf(id));
        }
        let head = Layered::of(Arc::new(tree));
        assert_eq!(check(&head, delta(&[("a", None)])).bytes, 9);
        assert_eq!(check(&head, delta(&[("a", None), ("b", None)])).bytes, 0);
        let head = head.with(Arc::new(delta(&[("a", None)])));
        assert_eq!(check(&head, delta(&[("b", Some(2))])).bytes, 2);
    }

    #[test]
    fn with_many_linked_files_everything_is_counted_anew() {
        let mut tree = Tree::default();
        let mut gone = Vec::new();
        for number in 0..FEW + 1 {
            let id = tree.push_leaf(file(1));
            for side in ["left", "right"] {
                let name = format!("{side}-{number}");
                tree.root.entries.insert(name.as_bytes().into(), homeport_content::Entry::Leaf(id));
            }
            gone.push((format!("left-{number}"), None));
        }
        let gone: Vec<_> = gone.iter().map(|(name, size)| (name.as_str(), *size)).collect();
        let account = check(&Layered::of(Arc::new(tree)), delta(&gone));
        assert_eq!(account.bytes, FEW as u64 + 1);
    }
}
