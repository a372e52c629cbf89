//! The scrubber, and the account of what is in a store.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use homeport_content::{Digest, FileContent, Leaf, LeafKind, Metadata, Tree};
use homeport_store::{Fault, Finding, Mended, Root, ScrubPolicy, Store};

fn fresh() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

fn quick() -> ScrubPolicy {
    ScrubPolicy { min_rate: 1 << 40, max_rate: 1 << 40, ..ScrubPolicy::default() }
}

fn damage(store: &Store, digest: &Digest) {
    let path = store.object_path(digest);
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, bytes).unwrap();
}

#[test]
fn damage_is_found_put_aside_and_mended_once_in_a_period() {
    let (dir, store) = fresh();
    let digests: Vec<_> = (0..20_u8).map(|n| store.put_bytes(&[n; 5000]).unwrap()).collect();
    store.put_tree(&Tree::default()).unwrap();
    damage(&store, &digests[3]);
    damage(&store, &digests[4]);
    let copies = dir.path().join("copies");
    fs::create_dir(&copies).unwrap();
    fs::write(copies.join("four"), [4; 5000]).unwrap();
    let policy = ScrubPolicy { sources: vec![copies.clone()], ..quick() };

    assert_eq!(store.scrub_due(&policy), Duration::ZERO);
    let found = RefCell::new(Vec::new());
    let never = AtomicBool::new(false);
    let state = store.scrub(&policy, &never, &|finding| found.borrow_mut().push(finding.clone())).unwrap();
    assert_eq!((state.files, state.faults, state.done), (21, 2, true));
    assert!(state.bytes > 100_000);
    let found = found.into_inner();
    let of = |number: usize| {
        let is_it = |finding: &&Finding| matches!(&finding.fault, Fault::Altered { what: Root::Object(it), .. } if *it == digests[number]);
        found.iter().find(is_it).unwrap().mended.clone().unwrap()
    };
    assert!(matches!(of(3), Mended::PutAside(path) if path.exists()));
    assert_eq!(of(4), Mended::Copied(copies.join("four")));
    assert!(!store.contains(&digests[3]));
    store.verify_object(&digests[4]).unwrap();

    let due = store.scrub_due(&policy);
    assert!(due > Duration::from_secs(29 * 24 * 3600) && due <= policy.period, "{due:?}");
    assert_eq!(store.scrub_state(), state);
    // The next round begins anew.
    let state = store.scrub(&policy, &never, &|finding| panic!("{finding:?}")).unwrap();
    assert_eq!((state.files, state.faults), (20, 0));
}

#[test]
fn a_round_goes_on_where_it_was_stopped() {
    let (dir, store) = fresh();
    let digests: Vec<_> = (0..20_u8).map(|n| store.put_bytes(&[n; 5000]).unwrap()).collect();
    let stop = AtomicBool::new(false);
    for digest in &digests {
        damage(&store, digest);
    }
    // Stopped at the third.
    let seen = RefCell::new(0);
    let until_third = |_: &Finding| {
        *seen.borrow_mut() += 1;
        stop.store(*seen.borrow() == 3, Ordering::Relaxed);
    };
    let state = store.scrub(&quick(), &stop, &until_third).unwrap();
    assert_eq!((state.files, state.faults, state.done), (3, 3, false));
    assert_eq!(store.scrub_due(&quick()), Duration::ZERO);
    // As after a restart of the server.
    drop(store);
    let store = Store::open(&dir.path().join("store")).unwrap();
    stop.store(false, Ordering::Relaxed);
    let found = RefCell::new(0);
    let state = store.scrub(&quick(), &stop, &|_| *found.borrow_mut() += 1).unwrap();
    assert_eq!((state.files, state.faults, state.done, *found.borrow()), (20, 20, true, 17));
}

#[test]
fn it_reads_no_faster_than_it_may() {
    let (_dir, store) = fresh();
    store.put_bytes(&vec![1; 4 << 20]).unwrap();
    let policy = ScrubPolicy { min_rate: 8 << 20, max_rate: 8 << 20, ..ScrubPolicy::default() };
    let start = Instant::now();
    store.scrub(&policy, &AtomicBool::new(false), &|_| ()).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(500), "{:?}", start.elapsed());
    let stop = AtomicBool::new(true);
    let slow = ScrubPolicy { min_rate: 1, max_rate: 1, ..policy };
    assert!(!store.scrub(&slow, &stop, &|_| ()).unwrap().done);
}

#[test]
fn usage_tells_what_is_shared_and_what_is_garbage() {
    let (_dir, store) = fresh();
    let mut sizes = Vec::new();
    let contents: Vec<_> = (1..=4_u8)
        .map(|n| {
            let digest = store.put_bytes(&vec![n; usize::from(n) * 100_000]).unwrap();
            sizes.push(fs::metadata(store.object_path(&digest)).unwrap().blocks() * 512);
            FileContent::Object { digest, size: u64::from(n) * 100_000 }
        })
        .collect();
    let tree = |numbers: &[usize]| {
        let mut tree = Tree::default();
        for number in numbers {
            let leaf = Leaf {
                metadata: Metadata::with_mode(0o644),
                kind: LeafKind::File(contents[*number].clone()),
            };
            tree.insert_leaf(format!("{number}").as_bytes(), leaf).unwrap();
        }
        store.put_tree(&tree).unwrap()
    };
    let (one, two, other) = (tree(&[0, 1]), tree(&[1]), tree(&[1, 2]));
    let block = 4096;
    let usage =
        store.usage(&[vec![Root::Tree(one), Root::Tree(two)], vec![Root::Tree(other)], vec![]]).unwrap();
    assert_eq!(usage.owners[0].bytes, sizes[0] + sizes[1] + 2 * block);
    assert_eq!(usage.owners[0].unique, sizes[0] + 2 * block);
    assert_eq!(usage.owners[1].bytes, sizes[1] + sizes[2] + block);
    assert_eq!(usage.owners[1].unique, sizes[2] + block);
    assert_eq!(usage.owners[2].bytes, 0);
    assert_eq!(usage.garbage, sizes[3]);
    assert_eq!(usage.total, sizes.iter().sum::<u64>() + 3 * block);
}
