//! Properties of deltas: their encoding, layers read as one, folding, differences.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use homeport_content::{
    Change, ChangedDirectory, DecodeErrorKind, Delta, Digest, EntryRef, FileContent, Layered, Leaf, LeafId,
    LeafKind, Metadata, Seen, Tree, diff, fold,
};
use proptest::collection::vec;
use proptest::prelude::*;
use random::{LEAVES, config, delta, few_delta, few_tree, layered};

/// What is at a path; leaves of one number are linked.
#[derive(Debug, Clone, PartialEq)]
enum At {
    Directory(Metadata),
    Leaf(usize, Leaf),
}

/// A version as a flat map, made the plain way: layer by layer.
fn model(layered: &Layered) -> (Metadata, BTreeMap<Vec<u8>, At>) {
    let mut paths = BTreeMap::new();
    let mut root = layered.base.root.metadata.clone();
    for (path, entry) in layered.base.walk() {
        let at = match entry {
            EntryRef::Directory(directory) => At::Directory(directory.metadata.clone()),
            EntryRef::Leaf(id, leaf) => At::Leaf(id.0 as usize, leaf.clone()),
        };
        paths.insert(path, at);
    }
    for (layer, delta) in layered.deltas.iter().enumerate() {
        root = delta.root.metadata.clone();
        for (path, change) in delta.walk() {
            let was_directory = matches!(paths.get(&path), Some(At::Directory(_)));
            if !was_directory || !matches!(change, Change::Directory(_)) {
                let below = [&path[..], b"/"].concat();
                paths.retain(|other, _| *other != path && !other.starts_with(&below));
            }
            match change {
                Change::Removed => {}
                Change::Directory(directory) => {
                    drop(paths.insert(path, At::Directory(directory.metadata.clone())))
                }
                Change::Leaf(id) => {
                    let number = 1000 * (layer + 1) + id.0 as usize;
                    paths.insert(path, At::Leaf(number, delta.leaf(*id).unwrap().clone()));
                }
            }
        }
    }
    (root, paths)
}

fn groups(paths: &BTreeMap<Vec<u8>, At>) -> BTreeSet<BTreeSet<Vec<u8>>> {
    let mut groups: BTreeMap<usize, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for (path, at) in paths {
        if let At::Leaf(number, _) = at {
            groups.entry(*number).or_default().insert(path.clone());
        }
    }
    groups.into_values().collect()
}

fn without_numbers(paths: &BTreeMap<Vec<u8>, At>) -> Vec<(Vec<u8>, At)> {
    let plain = |at: &At| match at {
        At::Leaf(_, leaf) => At::Leaf(0, leaf.clone()),
        directory => directory.clone(),
    };
    paths.iter().map(|(path, at)| (path.clone(), plain(at))).collect()
}

fn at(seen: Seen<'_>) -> At {
    match seen {
        Seen::Directory(metadata) => At::Directory(metadata.clone()),
        Seen::Leaf { leaf, .. } => At::Leaf(0, leaf.clone()),
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn decoding_gives_the_encoded_delta_back(delta in delta()) {
        prop_assert_eq!(delta.validate(), Ok(()));
        let bytes = delta.encode();
        let decoded = Delta::decode(&bytes).unwrap();
        prop_assert_eq!(decoded.encode(), bytes);
        prop_assert_eq!(decoded.id(), delta.id());
        prop_assert_eq!(decoded.entries(), delta.walk().count() as u64);
        let leaf = |delta: &Delta, id: LeafId| delta.leaf(id).cloned();
        for ((path, change), (other_path, other)) in delta.walk().zip(decoded.walk()) {
            prop_assert_eq!(&path, &other_path);
            match (change, other) {
                (Change::Leaf(id), Change::Leaf(other)) => {
                    prop_assert_eq!(leaf(&delta, *id), leaf(&decoded, *other));
                }
                (Change::Directory(directory), Change::Directory(other)) => {
                    prop_assert_eq!(&directory.metadata, &other.metadata);
                }
                (change, other) => prop_assert_eq!(change, other),
            }
            prop_assert_eq!(decoded.get(&path), Some(other));
        }
        // A decoded delta is in the order of its encoding, so equal content is equal in memory.
        prop_assert_eq!(Delta::decode(&decoded.encode()).unwrap(), decoded);
    }

    #[test]
    fn numbering_of_leaves_does_not_change_the_id(delta in delta()) {
        fn reverse(directory: &mut ChangedDirectory) {
            for change in directory.entries.values_mut() {
                match change {
                    Change::Directory(directory) => reverse(directory),
                    Change::Leaf(id) => id.0 = LEAVES - 1 - id.0,
                    Change::Removed => {}
                }
            }
        }
        let mut other = delta.clone();
        other.leaves.reverse();
        reverse(&mut other.root);
        prop_assert_eq!(other.id(), delta.id());
    }

    #[test]
    fn bytes_that_decode_are_the_encoding(
        delta in delta(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = delta.encode();
        for (index, value) in changes {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        if let Ok(decoded) = Delta::decode(&bytes) {
            prop_assert_eq!(decoded.validate(), Ok(()));
            prop_assert_eq!(decoded.encode(), bytes);
        }
        let encoded = delta.encode();
        let cut = cut.index(encoded.len());
        prop_assert!(Delta::decode(&encoded[..cut]).is_err());
        prop_assert!(Tree::decode(&encoded).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300), small in vec(0..9_u8, 0..300)) {
        for bytes in [bytes, small] {
            let mut delta = b"HPDELT\x01".to_vec();
            delta.extend(&bytes);
            let _ = Delta::decode(&delta);
            let _ = Delta::decode(&bytes);
        }
    }

    #[test]
    fn layers_read_as_one_tree(layered in layered()) {
        let (root, paths) = model(&layered);
        let flat = layered.flatten();
        prop_assert_eq!(flat.validate(), Ok(()));
        prop_assert_eq!(&flat.root.metadata, &root);
        prop_assert_eq!(layered.get(b"").unwrap().metadata(), &root);
        let (_, of_flat) = model(&Layered::of(Arc::new(flat.clone())));
        prop_assert_eq!(without_numbers(&of_flat), without_numbers(&paths));
        prop_assert_eq!(groups(&of_flat), groups(&paths));
        let walked: Vec<_> = layered.walk(b"").map(|(path, seen)| (path, at(seen))).collect();
        let in_walk_order: Vec<_> = flat.walk().map(|(path, _)| path).collect();
        prop_assert_eq!(walked.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>(), in_walk_order);
        prop_assert_eq!(walked.into_iter().collect::<BTreeMap<_, _>>(), without_numbers(&paths).into_iter().collect());
        let (_, names, bytes) = flat.totals();
        prop_assert_eq!(layered.totals(), (names, bytes));
        for (path, expected) in &paths {
            let seen = layered.get(path).unwrap();
            if let (Seen::Leaf { layer, id, .. }, At::Leaf(number, leaf)) = (seen, expected) {
                prop_assert_eq!(seen, Seen::Leaf { leaf, layer, id });
                let names: BTreeSet<_> = layered.names_of(layer, id).into_iter().collect();
                let linked = |(_, at): &(&Vec<u8>, &At)| matches!(at, At::Leaf(other, _) if other == number);
                prop_assert_eq!(names, paths.iter().filter(linked).map(|(path, _)| path.clone()).collect());
                prop_assert!(layered.list(path).is_none());
                prop_assert!(layered.get(&[path, b"/a".as_slice()].concat()).is_none());
            }
            if let Seen::Directory(_) = seen {
                let listed: Vec<_> = layered.list(path).unwrap();
                let expected: Vec<_> = flat.directory(path).unwrap().entries.keys().cloned().collect();
                prop_assert_eq!(listed.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), expected);
                let prefix = [path, b"/".as_slice()].concat();
                let below: Vec<_> = layered.walk(path).map(|(path, _)| path).collect();
                prop_assert!(below.iter().all(|path| path.starts_with(&prefix)));
                prop_assert_eq!(below.len(), paths.keys().filter(|path| path.starts_with(&prefix)).count());
            }
        }
        prop_assert!(layered.get(b"no/such").is_none());
    }

    #[test]
    fn a_tree_as_a_delta_is_that_tree(tree in few_tree()) {
        let layered = Layered::of(Arc::default()).with(Arc::new(Delta::from_tree(&tree)));
        prop_assert_eq!(layered.flatten().id(), tree.id());
    }

    #[test]
    fn folding_two_deltas_is_doing_both(below in layered(), lower in few_delta(), upper in few_delta()) {
        let folded = fold(&below, &lower, &upper);
        prop_assert_eq!(folded.validate(), Ok(()));
        let both = below.with(Arc::new(lower)).with(Arc::new(upper));
        let once = below.with(Arc::new(folded.clone()));
        prop_assert_eq!(once.flatten().id(), both.flatten().id());
        prop_assert_eq!(&Delta::decode(&folded.encode()).unwrap(), &folded);
    }

    #[test]
    fn folded_deltas_remove_only_what_was_there(below in layered(), first in layered(), second in layered()) {
        let lower = diff(&below, &first);
        let upper = diff(&first, &second);
        let folded = fold(&below, &lower, &upper);
        prop_assert_eq!(below.with(Arc::new(folded.clone())).flatten().id(), second.flatten().id());
        for (path, change) in folded.walk() {
            if *change == Change::Removed {
                prop_assert!(below.get(&path).is_some());
            }
        }
    }

    #[test]
    fn a_difference_makes_the_new_of_the_old(
        below in layered(),
        old in vec(few_delta().prop_map(Arc::new), 0..3),
        new in vec(few_delta().prop_map(Arc::new), 0..3),
        cut in any::<bool>(),
    ) {
        let over = |deltas: &[Arc<Delta>]| deltas.iter().fold(below.clone(), |below, delta| below.with(Arc::clone(delta)));
        let old = over(&old);
        let mut new = over(&new);
        if cut {
            new = Layered::of(Arc::new(new.flatten()));
        }
        let difference = diff(&old, &new);
        prop_assert_eq!(difference.validate(), Ok(()));
        prop_assert_eq!(old.with(Arc::new(difference.clone())).flatten().id(), new.flatten().id());
        let same = diff(&new, &Layered::of(Arc::new(new.flatten())));
        prop_assert!(same.is_empty(), "{:?}", same);
        prop_assert!(diff(&old, &old).is_empty());
        // Only what differs is in it: other values, or other links.
        let names = |layered: &Layered, path: &[u8]| match layered.get(path) {
            Some(Seen::Leaf { layer, id, .. }) => layered.names_of(layer, id).into_iter().collect(),
            _ => BTreeSet::new(),
        };
        for (path, change) in difference.walk() {
            match change {
                Change::Leaf(_) => {
                    let differs = old.get(&path).map(at) != new.get(&path).map(at);
                    let group = names(&new, &path);
                    let linked = group.len() > 1 && group.iter().any(|name| names(&old, name) != group
                        || old.get(name).map(at) != new.get(name).map(at));
                    prop_assert!(differs || linked || names(&old, &path) != group, "{:?}", path);
                    prop_assert!(group.iter().all(|name| difference.get(name) == Some(change)));
                }
                Change::Removed => prop_assert!(old.get(&path).is_some() && new.get(&path).is_none()),
                Change::Directory(directory) => {
                    let same = old.get(&path).map(at) == Some(At::Directory(directory.metadata.clone()));
                    prop_assert!(!same || !directory.entries.is_empty());
                }
            }
        }
    }
}

#[test]
fn claims_of_huge_sizes_fail_before_memory_is_taken() {
    let mut bytes = b"HPDELT\x01".to_vec();
    bytes.extend([0, 0, 0, 0, 0, 0]);
    bytes.extend([0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01]);
    let error = Delta::decode(&bytes).unwrap_err();
    assert!(matches!(error.kind, DecodeErrorKind::Truncated { .. }));
}

#[test]
fn nesting_beyond_the_limit_is_refused_without_deep_recursion() {
    let mut bytes = b"HPDELT\x01".to_vec();
    for _ in 0..1_000_000 {
        bytes.extend([0, 0, 0, 0, 0, 0, 1, 1, b'd', 0]);
    }
    let error = Delta::decode(&bytes).unwrap_err();
    assert_eq!(error.kind, DecodeErrorKind::Invalid("nested too deep"));
}

/// The version-1 bytes of a small delta: a change here is a change of the format.
#[test]
fn the_encoding_of_version_1_is_stable() {
    let mut delta = Delta::new(Metadata::with_mode(0o755));
    let kind = LeafKind::File(FileContent::Inline(b"hi".as_slice().into()));
    let id = delta.push_leaf(Leaf { metadata: Metadata::with_mode(0o644), kind });
    let mut inner = ChangedDirectory::new(Metadata::with_mode(0o755));
    inner.entries.insert(b"a".as_slice().into(), Change::Leaf(id));
    inner.entries.insert(b"gone".as_slice().into(), Change::Removed);
    delta.root.entries.insert(b"d".as_slice().into(), Change::Directory(Box::new(inner)));
    delta.root.entries.insert(b"z".as_slice().into(), Change::Leaf(id));
    let expected = b"HPDELT\x01\xed\x03\0\0\0\0\0\x02\
        \x01d\0\xed\x03\0\0\0\0\0\x02\
        \x01a\x01\xa4\x03\0\0\0\0\0\x02hi\
        \x04gone\x08\
        \x01z\x07\0";
    assert_eq!(delta.encode(), expected);
    assert_eq!(delta.id(), Digest::of(expected));
    assert_eq!(delta.entries(), 4);
}
