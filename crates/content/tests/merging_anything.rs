//! What holds of every merge: nothing is lost unseen, nothing comes from nowhere.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use homeport_content::{
    Delta, Edit, Foreign, Layered, Leaf, LeafKind, Merged, Metadata, Seen, diff, fold, merge,
};
use proptest::collection::vec;
use proptest::prelude::*;
use random::{config, few_delta, layered};

#[derive(Debug, Clone, PartialEq)]
enum At {
    Directory(Metadata),
    Leaf(Leaf),
}

/// A version by path, without times of directories.
fn paths(layered: &Layered) -> BTreeMap<Vec<u8>, At> {
    let at = |seen: Seen<'_>| match seen {
        Seen::Directory(metadata) => At::Directory(timeless(metadata)),
        Seen::Leaf { leaf, .. } => At::Leaf(leaf.clone()),
    };
    layered.walk(b"").map(|(path, seen)| (path, at(seen))).collect()
}

fn timeless(metadata: &Metadata) -> Metadata {
    Metadata { mtime: Default::default(), ..metadata.clone() }
}

/// A leaf without its time.
fn leaf(at: Option<&At>) -> Option<(&LeafKind, Metadata)> {
    match at? {
        At::Leaf(leaf) => Some((&leaf.kind, timeless(&leaf.metadata))),
        At::Directory(_) => None,
    }
}

fn is_within(path: &[u8], directory: &[u8]) -> bool {
    directory.is_empty()
        || path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// Checks one merge of `ours`, seen over `seen`, into `head`.
fn check(seen: &Layered, head: &Layered, ours: &Delta, merged: &Merged) -> Result<(), TestCaseError> {
    let result = head.with(Arc::new(merged.delta.clone()));
    prop_assert_eq!(merged.delta.validate(), Ok(()));
    let after_ours = seen.with(Arc::new(ours.clone()));
    let (s, h, o, r) = (paths(seen), paths(head), paths(&after_ours), paths(&result));
    let said = |path: &[u8]| merged.conflicts.iter().any(|conflict| is_within(path, &conflict.path));
    let all: BTreeSet<&Vec<u8>> = s.keys().chain(h.keys()).chain(o.keys()).chain(r.keys()).collect();
    for path in all {
        let [before, theirs, ours, after] = [&s, &h, &o, &r].map(|version| leaf(version.get(path)));
        // The last commit wins.
        if let Some((content, metadata)) = &ours
            && ours != before
        {
            let (found, its) =
                after.as_ref().ok_or_else(|| TestCaseError::fail(format!("ours lost {path:?}")))?;
            let was = before.as_ref();
            if was.is_none_or(|(was, _)| *was != *content) {
                prop_assert_eq!(content, found, "{:?}", path);
            }
            if was.is_none_or(|(_, was)| was.mode != metadata.mode) {
                prop_assert_eq!(metadata.mode, its.mode);
            }
        }
        // What theirs wrote is there, or the conflict is said.
        if let Some((content, metadata)) = &theirs
            && theirs != before
            && !said(path)
        {
            let (found, its) =
                after.as_ref().ok_or_else(|| TestCaseError::fail(format!("theirs lost {path:?}")))?;
            let was = before.as_ref();
            if was.is_none_or(|(was, _)| *was != *content) {
                prop_assert_eq!(content, found, "{:?}", path);
            }
            if was.is_none_or(|(_, was)| was.mode != metadata.mode) {
                prop_assert_eq!(metadata.mode, its.mode);
            }
        }
        // What ours removed is gone, unless theirs had made something else of it.
        if before.is_some() && ours.is_none() && (theirs.is_none() || theirs == before) {
            prop_assert!(after.is_none(), "{:?}", path);
        }
        // What theirs removed is gone, unless ours had made something else of it.
        if before.is_some() && theirs.is_none() && (ours.is_none() || ours == before) {
            prop_assert!(after.is_none(), "{:?}", path);
        }
        // What theirs removed and ours put back is said.
        if before.is_some() && theirs.is_none() && after.is_some() {
            prop_assert!(said(path), "{:?}", path);
        }
        // What nobody changed is unchanged.
        if before == theirs && before == ours {
            prop_assert_eq!(before, after.clone(), "{:?}", path);
        }
        // Nothing comes from nowhere.
        if let Some((content, metadata)) = &after {
            let sides = [&theirs, &ours].map(Option::as_ref);
            prop_assert!(sides.into_iter().flatten().any(|(kind, _)| kind == content));
            prop_assert!(sides.into_iter().flatten().any(|(_, side)| side.mode == metadata.mode));
        }
        if let (Some(At::Directory(_)), [theirs, ours]) = (r.get(path), [h.get(path), o.get(path)]) {
            prop_assert!(matches!(theirs, Some(At::Directory(_))) || matches!(ours, Some(At::Directory(_))));
            // An empty one is there because one side has it, not for what it held.
            let is_empty = !r.keys().any(|other| other != path && is_within(other, path));
            if is_empty && matches!(s.get(path), Some(At::Directory(_))) {
                prop_assert!(h.contains_key(path), "{:?}", path);
            }
        }
    }
    // A conflict is where both did something.
    for conflict in &merged.conflicts {
        let differs = |one: &BTreeMap<Vec<u8>, At>| {
            let root = conflict.path.is_empty();
            root || s
                .iter()
                .chain(one)
                .any(|(path, _)| is_within(path, &conflict.path) && s.get(path) != one.get(path))
        };
        prop_assert!(differs(&h) && differs(&o), "{:?}", conflict);
    }
    Ok(())
}

/// Names that were linked by ours, and decided alike, are linked.
fn check_links(seen: &Layered, ours: &Delta, merged: &Merged) -> Result<(), TestCaseError> {
    let after_ours = seen.with(Arc::new(ours.clone()));
    for (one, change) in merged.delta.walk() {
        for (other, other_change) in merged.delta.walk() {
            if let (homeport_content::Change::Leaf(a), homeport_content::Change::Leaf(b)) =
                (change, other_change)
            {
                let key = |path: &[u8]| match after_ours.get(path) {
                    Some(Seen::Leaf { layer, id, .. }) => Some((layer, id)),
                    _ => None,
                };
                let linked = key(&one) == key(&other) && key(&one).is_some();
                let alike = merged.delta.leaf(*a) == merged.delta.leaf(*b);
                prop_assert_eq!(a == b, linked && alike, "{:?} {:?}", one, other);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn with_nothing_in_between_it_is_what_ours_did(seen in layered(), ours in few_delta()) {
        let merged = merge(&seen, &seen, &ours, &[]);
        prop_assert!(merged.conflicts.is_empty());
        let result = seen.with(Arc::new(merged.delta)).flatten();
        prop_assert_eq!(result.id(), seen.with(Arc::new(ours)).flatten().id());
    }

    #[test]
    fn nothing_is_lost_unseen(
        seen in layered(),
        steps in vec((any::<bool>(), few_delta()), 1..6),
        compact in any::<bool>(),
        clean in any::<bool>(),
    ) {
        // One container, which keeps seeing what it started with and its own changes; others commit in between.
        let (mut view, mut head) = (seen.clone(), seen);
        let mut since: Vec<(u64, Arc<Delta>, bool)> = Vec::new();
        for (number, (own, delta)) in steps.into_iter().enumerate() {
            let number = number as u64 + 1;
            if !own {
                let delta = Arc::new(if clean { diff(&head, &head.with(Arc::new(delta))) } else { delta });
                head = head.with(Arc::clone(&delta));
                since.push((number, delta, false));
                continue;
            }
            let ours = if clean { diff(&view, &view.with(Arc::new(delta))) } else { delta };
            let foreign: Vec<Foreign<'_>> =
                since.iter().map(|(version, delta, own)| Foreign { version: *version, delta, own: *own }).collect();
            let merged = merge(&view, &head, &ours, &foreign);
            check(&view, &head, &ours, &merged)?;
            check_links(&view, &ours, &merged)?;
            for conflict in &merged.conflicts {
                prop_assert!(since.iter().any(|(version, _, own)| *version == conflict.lost_version && !own));
            }
            view = view.with(Arc::new(ours));
            let delta = Arc::new(merged.delta);
            head = head.with(Arc::clone(&delta));
            since.push((number, delta, true));
            if compact {
                head = Layered::of(Arc::new(head.flatten()));
            }
        }
    }

    #[test]
    fn what_does_not_meet_merges_in_either_order(seen in layered(), one in few_delta(), other in few_delta()) {
        // Below directories of their own: nothing meets.
        let below = |name: &[u8], delta: &Delta| {
            let mut root = Delta::new(seen.get(b"").unwrap().metadata().clone());
            root.leaves = delta.leaves.clone();
            let inner = homeport_content::Change::Directory(Box::new(delta.root.clone()));
            root.root.entries.insert(name.into(), inner);
            root
        };
        let (one, other) = (below(b"one", &one), below(b"other", &other));
        let both = |first: &Delta, second: &Delta| {
            let head = seen.with(Arc::new(first.clone()));
            let merged = merge(&seen, &head, second, &[Foreign { version: 1, delta: first, own: false }]);
            (merged.conflicts.len(), head.with(Arc::new(merged.delta)).flatten().id())
        };
        prop_assert_eq!(both(&one, &other), both(&other, &one));
        prop_assert_eq!(both(&one, &other).0, 0);
    }
}

#[test]
fn the_deepest_directories_fit_on_the_stack_of_a_thread() {
    let deep = b"d/".repeat(1023);
    let mut seen = Layered::of(Arc::default());
    let mut deltas = Vec::new();
    for name in [b"a", b"b", b"c"] {
        let mut edit = Edit::new(&seen, Default::default());
        let leaf = Leaf { metadata: Metadata::with_mode(0o644), kind: LeafKind::Fifo };
        edit.put_leaf(&[&deep[..], name].concat(), leaf).unwrap();
        edit.copy(&[&deep[..], name].concat(), &[&deep[..], b"copy"].concat(), true).unwrap();
        let delta = edit.finish();
        deltas.push(delta.clone());
        if name == b"a" {
            seen = seen.with(Arc::new(Delta::decode(&delta.encode()).unwrap()));
        }
    }
    // Threads have 2 MiB.
    let thread = std::thread::Builder::new().stack_size(1536 << 10).spawn(move || {
        let head = seen.with(Arc::new(deltas[1].clone()));
        let foreign = [Foreign { version: 1, delta: &deltas[1], own: false }];
        let merged = merge(&seen, &head, &deltas[2], &foreign);
        assert_eq!(merged.conflicts.len(), 0);
        let result = head.with(Arc::new(merged.delta.clone()));
        assert_eq!(diff(&seen, &result).walk().count(), 1023 + 2);
        assert_eq!(fold(&seen, &deltas[1], &merged.delta).walk().count(), 1023 + 3);
        let flat = result.flatten();
        assert_eq!(flat.validate(), Ok(()));
        let mut root = Delta::new(seen.get(b"").unwrap().metadata().clone());
        root.root.entries.insert(b"d".as_slice().into(), homeport_content::Change::Removed);
        let merged = merge(&seen, &head, &root, &foreign);
        // What was seen goes, what came stays, and so do the directories above it.
        let removed = |(_, change): &(Vec<u8>, &homeport_content::Change)| {
            **change == homeport_content::Change::Removed
        };
        assert_eq!(merged.delta.walk().filter(removed).count(), 2);
        let mut edit = Edit::new(&head, Default::default());
        edit.copy(b"d/d/d", b"e", true).unwrap();
        edit.rename(b"e", b"f").unwrap();
        assert_eq!(edit.finish().validate(), Ok(()));
    });
    thread.unwrap().join().unwrap();
}
