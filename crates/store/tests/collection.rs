//! Garbage collection on real files: what goes, what stays, beside whom.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use homeport_content::{Delta, Digest, FileContent, Leaf, LeafKind, Metadata, SnapshotId, Tree};
use homeport_store::{Root, Store, StoreError, SweepError, Swept};

fn fresh() -> (tempfile::TempDir, Arc<Store>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, Arc::new(store))
}

fn bytes(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(200)
}

fn tree_of(contents: &[u64]) -> Tree {
    let mut tree = Tree::default();
    for number in contents {
        let content = FileContent::Object { digest: Digest::of(&bytes(*number)), size: 1600 };
        let leaf = Leaf { metadata: Metadata::with_mode(0o644), kind: LeafKind::File(content) };
        tree.insert_leaf(format!("dir/{number}").as_bytes(), leaf).unwrap();
    }
    tree
}

/// Stores a tree and its contents, as a build does.
fn stored(store: &Store, contents: &[u64]) -> SnapshotId {
    let batch = store.batch().unwrap();
    for number in contents {
        batch.put_bytes(&bytes(*number)).unwrap();
    }
    batch.publish_with_tree(&tree_of(contents)).unwrap()
}

fn swept(store: &Arc<Store>, roots: &[Root]) -> Swept {
    let mut collection = store.collection(Duration::ZERO);
    for root in roots {
        assert!(collection.mark(*root), "{root}");
    }
    collection.sweep(false, &|_| ()).unwrap()
}

#[test]
fn what_no_root_leads_to_goes_and_the_rest_stays() {
    let (_dir, store) = fresh();
    let (kept, garbage) = (stored(&store, &[1, 2, 3]), stored(&store, &[3, 4, 5]));
    let alone = store.put_bytes(&bytes(6)).unwrap();
    let delta = Delta::from_tree(&tree_of(&[7]));
    store.put_bytes(&bytes(7)).unwrap();
    let delta = store.put_delta(&delta).unwrap();
    let unnamed = store.put_delta(&Delta::from_tree(&tree_of(&[1]))).unwrap();
    let roots = [Root::Tree(kept), Root::Object(alone), Root::Delta(delta)];

    let mut collection = store.collection(Duration::ZERO);
    for root in roots {
        collection.mark(root);
    }
    let foreseen = collection.sweep(true, &|_| ()).unwrap();
    assert!(store.contains_tree(&garbage));
    let done = swept(&store, &roots);
    assert_eq!(done, foreseen);
    assert_eq!((done.objects, done.trees, done.deltas, done.kept), (2, 1, 1, 7));
    assert!(done.bytes >= 4 * 512 && done.kept_bytes >= 7 * 512, "{done:?}");

    assert_eq!(store.verify_tree(&kept).unwrap(), 4800);
    assert!(matches!(store.tree(&garbage), Err(StoreError::MissingTree(_))));
    assert!(!store.contains_delta(&unnamed) && store.contains_delta(&delta));
    for (number, stays) in [(1, true), (4, false), (5, false), (6, true), (7, true)] {
        assert_eq!(store.contains(&Digest::of(&bytes(number))), stays, "{number}");
    }
    // What went can come back.
    assert_eq!(stored(&store, &[3, 4, 5]), garbage);
    store.verify_tree(&garbage).unwrap();
}

#[test]
fn a_hold_keeps_what_is_stored_and_what_is_found_since_it_began() {
    let (dir, store) = fresh();
    stored(&store, &[1, 2]);
    let elsewhere = Store::open(&dir.path().join("store")).unwrap();
    // A hold of this store, and one of another process.
    for holder in [&store, &elsewhere] {
        let hold = holder.hold();
        let found = stored(holder, &[1, 3]);
        // Found without a tree that names it.
        holder.put_bytes(&bytes(2)).unwrap();
        assert_eq!(swept(&store, &[]).kept, 4);
        holder.verify_tree(&found).unwrap();
        drop(hold);
        assert_eq!(swept(&store, &[]).kept, 0);
        stored(&store, &[1, 2]);
    }
}

#[test]
fn young_garbage_has_a_time_of_grace() {
    let (_dir, store) = fresh();
    stored(&store, &[1]);
    let mut collection = store.collection(Duration::from_secs(60));
    assert_eq!(collection.sweep(false, &|_| ()).unwrap().objects, 0);
    assert_eq!(swept(&store, &[]).objects, 1);
}

#[test]
fn a_pin_keeps_what_it_leads_to_until_the_collections_of_its_time_are_over() {
    let (_dir, store) = fresh();
    let (pinned, held) = (stored(&store, &[1]), stored(&store, &[2]));
    let pin = store.pin([Root::Tree(pinned)]);
    assert_eq!(swept(&store, &[Root::Tree(held)]).kept, 4);
    let hold = store.hold();
    hold.pin([Root::Tree(held)]);
    assert_eq!(swept(&store, &[]).kept, 4);
    let mut collection = store.collection(Duration::ZERO);
    drop((pin, hold));
    assert_eq!(collection.sweep(false, &|_| ()).unwrap().kept, 4);
    drop(collection);
    assert_eq!(swept(&store, &[]).kept, 0);
}

#[test]
fn nothing_is_removed_while_a_root_cannot_be_read() {
    let (_dir, store) = fresh();
    let (broken, garbage) = (stored(&store, &[1]), stored(&store, &[2]));
    let hex = broken.to_string();
    std::fs::remove_file(store.dir().join("trees").join(&hex[..2]).join(&hex[2..])).unwrap();
    let mut collection = store.collection(Duration::ZERO);
    assert!(!collection.mark(Root::Tree(broken)));
    let missing = Digest::of(b"missing");
    assert!(!collection.mark(Root::Object(missing)));
    let roots: Vec<_> = collection.broken().iter().map(|broken| broken.root).collect();
    assert_eq!(roots, [Root::Tree(broken), Root::Object(missing)]);
    let refused = collection.sweep(false, &|_| ()).unwrap_err();
    assert!(matches!(refused, SweepError::BrokenRoot(root, _) if root == Root::Tree(broken)), "{refused}");
    assert!(store.contains_tree(&garbage) && store.contains(&Digest::of(&bytes(1))));
}

#[test]
fn leftovers_of_processes_that_are_gone_go() {
    let (_dir, store) = fresh();
    let mine = store.scratch_dir().unwrap();
    std::fs::write(mine.path().join("half"), b"half").unwrap();
    let left = store.dir().join("scratch/work-17-abc");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("half"), b"half").unwrap();
    assert_eq!(swept(&store, &[]).leftovers, 1);
    assert!(mine.path().join("half").exists() && !left.exists());
}

/// Operations of several threads, two of them with a store of their own as other processes have,
/// beside collections without a pause: everything that has a name must be whole at any time.
#[test]
fn nothing_that_has_a_name_is_lost_in_a_storm() {
    let (dir, store) = fresh();
    let elsewhere = Arc::new(Store::open(&dir.path().join("store")).unwrap());
    let names: Mutex<HashMap<u64, SnapshotId>> = Mutex::default();
    let stop = AtomicBool::new(false);
    let (commits, removed) = (AtomicU64::new(0), AtomicU64::new(0));
    let end = Instant::now() + Duration::from_secs(4);
    std::thread::scope(|scope| {
        for worker in 0..4_u64 {
            let store = if worker < 2 { &store } else { &elsewhere };
            let (names, stop, commits) = (&names, &stop, &commits);
            scope.spawn(move || {
                let mut round = worker * 1_000_003;
                while !stop.load(Ordering::Relaxed) {
                    round = round.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(worker);
                    // Few contents, so that most are found as somebody's garbage.
                    let contents: Vec<u64> = (0..3).map(|place| (round >> (8 * place + 20)) % 20).collect();
                    let name = worker;
                    let hold = store.hold();
                    let id = stored(store, &contents);
                    names.lock().unwrap().insert(name, id);
                    drop(hold);
                    commits.fetch_add(1, Ordering::Relaxed);
                    store.verify_tree(&id).unwrap();
                    if round % 4 != 0 {
                        names.lock().unwrap().remove(&name);
                    }
                }
            });
        }
        while Instant::now() < end {
            let mut collection = store.collection(Duration::ZERO);
            for id in names.lock().unwrap().values() {
                collection.mark(Root::Tree(*id));
            }
            removed.fetch_add(collection.sweep(false, &|_| ()).unwrap().objects, Ordering::Relaxed);
        }
        stop.store(true, Ordering::Relaxed);
    });
    for id in names.lock().unwrap().values() {
        store.verify_tree(id).unwrap();
    }
    // Otherwise nothing was tried.
    let (commits, removed) = (commits.into_inner(), removed.into_inner());
    assert!(commits > 100 && removed > 100, "{commits} commits, {removed} objects removed");
}
