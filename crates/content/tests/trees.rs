//! Properties of the encoding and of overlaying, over random trees.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod random;

use std::collections::BTreeMap;

use homeport_content::{
    DecodeErrorKind, Digest, Directory, Entry, EntryRef, FileContent, Leaf, LeafId, LeafKind, Metadata,
    Timestamp, Tree,
};
use proptest::collection::vec;
use proptest::prelude::*;
use random::{LEAVES, config, tree};

#[derive(Debug, Clone, PartialEq)]
enum Seen {
    Directory(Metadata),
    Leaf(Leaf),
}

/// A tree as a flat map, and the names of each leaf.
fn flatten(tree: &Tree) -> BTreeMap<Vec<u8>, Seen> {
    tree.walk()
        .map(|(path, entry)| match entry {
            EntryRef::Directory(directory) => (path, Seen::Directory(directory.metadata.clone())),
            EntryRef::Leaf(_, leaf) => (path, Seen::Leaf(leaf.clone())),
        })
        .collect()
}

fn links(tree: &Tree) -> Vec<Vec<Vec<u8>>> {
    let mut names: BTreeMap<LeafId, Vec<Vec<u8>>> = BTreeMap::new();
    for (path, entry) in tree.walk() {
        if let EntryRef::Leaf(id, _) = entry {
            names.entry(id).or_default().push(path);
        }
    }
    let mut groups: Vec<_> = names.into_values().collect();
    groups.sort();
    groups
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn decoding_gives_the_encoded_tree_back(tree in tree()) {
        prop_assert_eq!(tree.validate(), Ok(()));
        let bytes = tree.encode();
        let decoded = Tree::decode(&bytes).unwrap();
        prop_assert_eq!(&decoded.root.metadata, &tree.root.metadata);
        prop_assert_eq!(flatten(&decoded), flatten(&tree));
        prop_assert_eq!(links(&decoded), links(&tree));
        prop_assert_eq!(decoded.encode(), bytes);
        prop_assert_eq!(decoded.id(), tree.id());
    }

    #[test]
    fn numbering_of_leaves_does_not_change_the_id(tree in tree()) {
        fn reverse(directory: &mut Directory) {
            for entry in directory.entries.values_mut() {
                match entry {
                    Entry::Directory(directory) => reverse(directory),
                    Entry::Leaf(id) => id.0 = LEAVES - 1 - id.0,
                }
            }
        }
        let mut other = tree.clone();
        other.leaves.reverse();
        reverse(&mut other.root);
        prop_assert_eq!(other.id(), tree.id());
    }

    #[test]
    fn bytes_that_decode_are_the_encoding(
        tree in tree(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = tree.encode();
        for (index, value) in changes {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        if let Ok(decoded) = Tree::decode(&bytes) {
            prop_assert_eq!(decoded.validate(), Ok(()));
            prop_assert_eq!(decoded.encode(), bytes);
        }
        let encoded = tree.encode();
        let cut = cut.index(encoded.len());
        prop_assert!(Tree::decode(&encoded[..cut]).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        let mut tree = b"HPTREE\x01".to_vec();
        tree.extend(&bytes);
        let _ = Tree::decode(&tree);
        let _ = Tree::decode(&bytes);
    }

    #[test]
    fn overlay_agrees_with_a_flat_map(lower in tree(), upper in tree()) {
        let mut model = flatten(&lower);
        for (path, seen) in flatten(&upper) {
            let replaces = matches!(
                (model.get(&path), &seen),
                (Some(Seen::Leaf(_)), _) | (_, Seen::Leaf(_))
            );
            if replaces {
                let mut below = path.clone();
                below.push(b'/');
                model.retain(|other, _| *other != path && !other.starts_with(&below));
            }
            model.insert(path, seen);
        }
        let mut merged = lower;
        merged.overlay(&upper);
        prop_assert_eq!(flatten(&merged), model);
        prop_assert_eq!(&merged.root.metadata, &upper.root.metadata);
        let merged_links = links(&merged);
        for group in links(&upper) {
            prop_assert!(merged_links.contains(&group));
        }
    }

    #[test]
    fn a_subtree_is_what_lies_below(tree in tree()) {
        for (path, entry) in tree.walk() {
            let EntryRef::Directory(directory) = entry else { continue };
            let subtree = tree.subtree(&path).unwrap();
            prop_assert_eq!(&subtree.root.metadata, &directory.metadata);
            let mut prefix = path.clone();
            prefix.push(b'/');
            let below: BTreeMap<_, _> = flatten(&tree)
                .into_iter()
                .filter_map(|(path, seen)| Some((path.strip_prefix(&prefix[..])?.to_vec(), seen)))
                .collect();
            prop_assert_eq!(flatten(&subtree), below);
        }
    }
}

#[test]
fn claims_of_huge_sizes_fail_before_memory_is_taken() {
    let mut bytes = b"HPTREE\x01".to_vec();
    bytes.extend([0, 0, 0, 0, 0, 0]);
    // A count of 2^63 entries, then nothing.
    bytes.extend([0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01]);
    let error = Tree::decode(&bytes).unwrap_err();
    assert!(matches!(error.kind, DecodeErrorKind::Truncated { .. }));
    assert_eq!(error.offset, bytes.len());
}

#[test]
fn nesting_beyond_the_limit_is_refused_without_deep_recursion() {
    let mut bytes = b"HPTREE\x01".to_vec();
    for _ in 0..1_000_000 {
        bytes.extend([0, 0, 0, 0, 0, 0, 1, 1, b'd', 0]);
    }
    let error = Tree::decode(&bytes).unwrap_err();
    assert_eq!(error.kind, DecodeErrorKind::Invalid("nested too deep"));
}

/// The version-1 bytes of a small tree: a change here is a change of the format.
#[test]
fn the_encoding_of_version_1_is_stable() {
    let mut tree = Tree::default();
    let file = Leaf {
        metadata: Metadata {
            mtime: Timestamp { seconds: -2, nanos: 7 },
            xattrs: [(b"user.k".as_slice().into(), b"v".as_slice().into())].into(),
            ..Metadata::with_mode(0o644)
        },
        kind: LeafKind::File(FileContent::Inline(b"hi".as_slice().into())),
    };
    let id = tree.insert_leaf(b"d/a", file).unwrap();
    tree.insert_link(b"z", id).unwrap();
    let expected = b"HPTREE\x01\xed\x03\0\0\0\0\0\x02\
        \x01d\0\xed\x03\0\0\0\0\0\x01\
        \x01a\x01\xa4\x03\0\0\x03\x07\x01\x06user.k\x01v\x02hi\
        \x01z\x07\0";
    assert_eq!(tree.encode(), expected);
    let text = tree.id().to_string();
    assert_eq!(text, Digest::of(expected).to_string());
}
