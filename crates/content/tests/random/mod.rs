//! Random trees and deltas.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use homeport_content::{
    Change, ChangedDirectory, Delta, Digest, Directory, Entry, FileContent, INLINE_LIMIT, Layered, Leaf,
    LeafId, LeafKind, Metadata, Timestamp, Tree,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

pub fn metadata() -> impl Strategy<Value = Metadata> {
    let attribute = (vec(1..=255_u8, 1..12), vec(any::<u8>(), 0..20));
    (0..=0o7777_u32, any::<u32>(), any::<u32>(), any::<i64>(), 0..1_000_000_000_u32, vec(attribute, 0..3))
        .prop_map(|(mode, uid, gid, seconds, nanos, xattrs)| Metadata {
            mode,
            uid,
            gid,
            mtime: Timestamp { seconds, nanos },
            xattrs: xattrs.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        })
}

pub fn leaf() -> impl Strategy<Value = Leaf> {
    let kind = prop_oneof![
        4 => vec(any::<u8>(), 0..=INLINE_LIMIT)
            .prop_map(|bytes| LeafKind::File(FileContent::Inline(bytes.into()))),
        4 => (any::<[u8; 32]>(), any::<u64>()).prop_map(|(digest, size)| {
            let digest = Digest::from_bytes(digest);
            LeafKind::File(FileContent::Object { digest, size })
        }),
        2 => vec(1..=255_u8, 1..40).prop_map(|target| LeafKind::Symlink(target.into())),
        1 => Just(LeafKind::Fifo),
        1 => (1..1_u64 << 32).prop_map(LeafKind::CharDevice),
        1 => (0..1_u64 << 32).prop_map(LeafKind::BlockDevice),
    ];
    (metadata(), kind).prop_map(|(metadata, kind)| Leaf { metadata, kind })
}

/// Few names, so that two trees have many in common.
pub fn name() -> impl Strategy<Value = Box<[u8]>> {
    prop_oneof![
        4 => (b'a'..b'f').prop_map(|byte| Box::from([byte])),
        1 => vec(prop_oneof![b'0'..=b'9', 0x80..=0xff_u8], 1..9).prop_map(Box::from),
    ]
}

pub const LEAVES: u32 = 8;

/// Every entry names one of a few leaves, so hard links are common and some leaves are unused.
pub fn tree() -> impl Strategy<Value = Tree> {
    let entry = (0..LEAVES).prop_map(|number| Entry::Leaf(LeafId(number)));
    let entry = entry.prop_recursive(4, 40, 6, |inner| {
        (metadata(), btree_map(name(), inner, 0..6))
            .prop_map(|(metadata, entries)| Entry::Directory(Box::new(Directory { metadata, entries })))
    });
    (metadata(), btree_map(name(), entry, 0..6), vec(leaf(), LEAVES as usize))
        .prop_map(|(metadata, entries, leaves)| Tree { root: Directory { metadata, entries }, leaves })
}

/// The same cases every time, unless a longer search is asked for.
pub fn config() -> ProptestConfig {
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.rng_seed = RngSeed::Fixed(0x0048_6f6d_6570_6f72);
    }
    config
}

fn changes(
    metadata: BoxedStrategy<Metadata>,
    name: BoxedStrategy<Box<[u8]>>,
    leaf: BoxedStrategy<Leaf>,
) -> impl Strategy<Value = Delta> {
    let change = prop_oneof![
        3 => (0..LEAVES).prop_map(|number| Change::Leaf(LeafId(number))),
        1 => Just(Change::Removed),
    ];
    let inner = (metadata.clone(), name.clone());
    let change = change.prop_recursive(4, 40, 6, move |below| {
        (inner.0.clone(), btree_map(inner.1.clone(), below, 0..6)).prop_map(|(metadata, entries)| {
            Change::Directory(Box::new(ChangedDirectory { metadata, entries }))
        })
    });
    (metadata, btree_map(name, change, 0..6), vec(leaf, LEAVES as usize)).prop_map(
        |(metadata, entries, leaves)| Delta { root: ChangedDirectory { metadata, entries }, leaves },
    )
}

/// As [`tree`], as a delta.
pub fn delta() -> impl Strategy<Value = Delta> {
    changes(metadata().boxed(), name().boxed(), leaf().boxed())
}

/// Little variety, so that many things are alike.
pub fn few_metadata() -> impl Strategy<Value = Metadata> {
    (prop_oneof![3 => Just(0o755), 1 => Just(0o700), 1 => Just(0o711)], 0..3_i64, 0..2_u8).prop_map(
        |(mode, seconds, attribute)| {
            let mut metadata =
                Metadata { mtime: Timestamp { seconds, nanos: 0 }, ..Metadata::with_mode(mode) };
            if attribute == 1 {
                metadata.xattrs.insert(b"user.k".as_slice().into(), b"v".as_slice().into());
            }
            metadata
        },
    )
}

pub fn few_leaf() -> impl Strategy<Value = Leaf> {
    let kind = prop_oneof![
        6 => (0..4_u8).prop_map(|byte| LeafKind::File(FileContent::Inline(Box::new([byte])))),
        1 => Just(LeafKind::Symlink(b"x".as_slice().into())),
    ];
    (few_metadata(), kind).prop_map(|(metadata, kind)| Leaf { metadata, kind })
}

fn few_name() -> impl Strategy<Value = Box<[u8]>> {
    prop_oneof![6 => (b'a'..b'e').prop_map(|byte| Box::from([byte])), 1 => Just(Box::from([0xff_u8]))]
}

pub fn few_delta() -> impl Strategy<Value = Delta> {
    changes(few_metadata().boxed(), few_name().boxed(), few_leaf().boxed())
}

pub fn few_tree() -> impl Strategy<Value = Tree> {
    few_delta().prop_map(|delta| Layered { base: Arc::default(), deltas: vec![Arc::new(delta)] }.flatten())
}

/// A few layers.
pub fn layered() -> impl Strategy<Value = Layered> {
    (few_tree(), vec(few_delta().prop_map(Arc::new), 0..4))
        .prop_map(|(base, deltas)| Layered { base: Arc::new(base), deltas })
}
