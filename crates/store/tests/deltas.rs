//! Deltas in the store: round trips, refusals, versions made of layers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Cursor;
use std::sync::Arc;
use std::time::Instant;

use homeport_content::{
    Change, Delta, Digest, FileContent, Layered, Leaf, LeafKind, Metadata, Seen, Stack, Tree, fold,
};
use homeport_store::{Store, StoreError};

fn fresh() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

fn file(content: FileContent) -> Leaf {
    Leaf { metadata: Metadata::with_mode(0o644), kind: LeafKind::File(content) }
}

fn delta_of(name: &[u8], content: FileContent) -> Delta {
    let mut delta = Delta::new(Metadata::with_mode(0o755));
    let id = delta.push_leaf(file(content));
    delta.root.entries.insert(name.into(), Change::Leaf(id));
    delta
}

#[test]
fn deltas_come_back_and_bad_ones_are_refused() {
    let (dir, store) = fresh();
    let batch = store.batch().unwrap();
    let content = batch.file_content(Cursor::new(vec![1; 4000])).unwrap();
    let delta = delta_of(b"f", content.clone());
    let id = batch.publish_with_delta(&delta).unwrap();
    assert_eq!(id, delta.id());
    assert!(store.contains_delta(&id));
    assert_eq!(store.read_content(&content).unwrap(), vec![1; 4000]);
    assert_eq!(store.put_delta(&delta).unwrap(), id);
    drop(store);
    let store = Store::open(&dir.path().join("store")).unwrap();
    assert_eq!(*store.delta(&id).unwrap(), delta);
    assert!(Arc::ptr_eq(&store.delta(&id).unwrap(), &store.delta(&id).unwrap()));

    let refused = store.put_delta(&delta_of(b"f", FileContent::Inline(vec![0; 513].into()))).unwrap_err();
    assert!(matches!(refused, StoreError::InvalidTree(_)), "{refused:?}");
    let refused = store.put_delta(&delta_of(b"a/b", FileContent::Inline(Box::default()))).unwrap_err();
    assert!(matches!(refused, StoreError::InvalidTree(_)), "{refused:?}");
    let missing = Digest::of(b"no delta");
    assert!(!store.contains_delta(&missing));
    let refused = store.delta(&missing).unwrap_err();
    assert!(matches!(refused, StoreError::MissingDelta(id) if id == missing));
}

#[test]
fn damaged_deltas_are_never_served() {
    let (dir, store) = fresh();
    let id = store.put_delta(&delta_of(b"f", FileContent::Inline(b"x".as_slice().into()))).unwrap();
    drop(store);
    let hex = id.to_string();
    let path = dir.path().join("store/deltas").join(&hex[..2]).join(&hex[2..]);
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    assert!(matches!(store.delta(&id), Err(StoreError::Damaged { .. })));
    // Bytes that have the digest, and are no delta.
    let tree = Tree::default().encode();
    let id = Digest::of(&tree);
    let hex = id.to_string();
    let shard = dir.path().join("store/deltas").join(&hex[..2]);
    fs::create_dir_all(&shard).unwrap();
    fs::write(shard.join(&hex[2..]), &tree).unwrap();
    assert!(matches!(store.delta(&id), Err(StoreError::UndecodableDelta { .. })));
}

#[test]
fn a_stack_is_read_as_layers() {
    let (_dir, store) = fresh();
    let mut base = Tree::default();
    base.insert_leaf(b"old", file(FileContent::Inline(b"old".as_slice().into()))).unwrap();
    let base = store.put_tree(&base).unwrap();
    let first = delta_of(b"new", FileContent::Inline(b"1".as_slice().into()));
    let second = delta_of(b"new", FileContent::Inline(b"2".as_slice().into()));
    let stack =
        Stack::of(base).with(store.put_delta(&first).unwrap()).with(store.put_delta(&second).unwrap());
    let version = store.layered(&stack).unwrap();
    let Some(Seen::Leaf { leaf, layer, .. }) = version.get(b"new") else { panic!("no leaf") };
    assert_eq!((leaf, layer), (&second.leaves[0], 2));
    assert!(version.get(b"old").is_some());
    let folded = fold(&Layered::of(store.tree(&base).unwrap()), &first, &second);
    let short = Stack::of(base).with(store.put_delta(&folded).unwrap());
    assert_eq!(store.layered(&short).unwrap().flatten().id(), version.flatten().id());
    let missing = Stack::of(base).with(Digest::of(b"none"));
    assert!(matches!(store.layered(&missing), Err(StoreError::MissingDelta(_))));
}

#[test]
fn many_threads_may_store_the_same_delta() {
    let (_dir, store) = fresh();
    let ids: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let batch = store.batch().unwrap();
                    let content = batch.file_content(Cursor::new(vec![7; 9000])).unwrap();
                    batch.publish_with_delta(&delta_of(b"f", content)).unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(store.delta(&ids[0]).unwrap().entries(), 1);
}

/// What a commit of one file costs. Not a test of the machine: `cargo test -- --ignored --nocapture` shows it.
#[test]
#[ignore = "prints figures"]
fn the_price_of_a_small_commit() {
    let (_dir, store) = fresh();
    let mut times = Vec::new();
    for number in 0..200_u32 {
        let bytes = number.to_le_bytes().repeat(1000);
        let began = Instant::now();
        let batch = store.batch().unwrap();
        let content = batch.file_content(Cursor::new(bytes)).unwrap();
        batch.publish_with_delta(&delta_of(b"f", content)).unwrap();
        times.push(began.elapsed());
    }
    times.sort();
    println!("median {:?}, 90 % {:?}, most {:?}", times[100], times[180], times[199]);
}
