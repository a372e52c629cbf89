//! The check of a store: every kind of damage is found, and mended from wherever a good copy is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use homeport_content::{Delta, Digest, FileContent, Leaf, LeafKind, Metadata, SnapshotId, Tree};
use homeport_store::{
    CheckNews, CheckRequest, CheckSummary, Fault, Finding, Mended, Root, Store, StoreError,
};

const LARGE: usize = 3_000_001;

fn bytes(number: u8) -> Vec<u8> {
    if number == 0 { vec![7; LARGE] } else { vec![number; 5_000] }
}

fn tree_of(contents: &[u8]) -> Tree {
    let mut tree = Tree::default();
    for number in contents {
        let bytes = bytes(*number);
        let content = FileContent::Object { digest: Digest::of(&bytes), size: bytes.len() as u64 };
        let leaf = Leaf { metadata: Metadata::with_mode(0o644), kind: LeafKind::File(content) };
        tree.insert_leaf(format!("dir/{number}").as_bytes(), leaf).unwrap();
    }
    tree
}

struct Place {
    dir: tempfile::TempDir,
    store: Store,
    tree: SnapshotId,
    delta: Digest,
}

impl Place {
    /// A store with a tree of contents 0 to 3, a delta of 3 and 4, and a tree that nobody names.
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        for number in 0..5 {
            store.put_bytes(&bytes(number)).unwrap();
        }
        let tree = store.put_tree(&tree_of(&[0, 1, 2, 3])).unwrap();
        let delta = store.put_delta(&Delta::from_tree(&tree_of(&[3, 4]))).unwrap();
        store.put_tree(&tree_of(&[4])).unwrap();
        Place { dir, store, tree, delta }
    }

    fn file(&self, root: &Root) -> PathBuf {
        let (kind, hex) = match root {
            Root::Tree(id) => ("trees", id.to_string()),
            Root::Delta(id) => ("deltas", id.to_string()),
            Root::Object(digest) => ("objects", digest.to_string()),
        };
        self.store.dir().join(kind).join(&hex[..2]).join(&hex[2..])
    }

    fn check(&self, repair: bool, sources: &[&Path]) -> (Vec<Finding>, CheckSummary) {
        let request = CheckRequest {
            roots: vec![
                (Root::Tree(self.tree), "image one".to_owned()),
                (Root::Delta(self.delta), "volume two".to_owned()),
            ],
            repair,
            sources: sources.iter().map(|path| path.to_path_buf()).collect(),
        };
        let found = Mutex::new(Vec::new());
        let on_news = |news: CheckNews<'_>| {
            if let CheckNews::Found(finding) = news {
                found.lock().unwrap().push(finding.clone());
            }
        };
        let summary = self.store.check(&request, &on_news).unwrap();
        let found = found.into_inner().unwrap();
        assert_eq!(summary.faults, found.len() as u64);
        (found, summary)
    }

    /// Changes a byte in the middle of a file, behind the back of everybody.
    fn alter(&self, root: &Root) {
        let path = self.file(root);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let file = File::options().write(true).read(true).open(&path).unwrap();
        let middle = file.metadata().unwrap().len() / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, middle).unwrap();
        file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    }
}

fn object(number: u8) -> Root {
    Root::Object(Digest::of(&bytes(number)))
}

#[test]
fn a_good_store_has_no_faults_but_may_have_garbage() {
    let place = Place::new();
    let (found, summary) = place.check(false, &[]);
    assert_eq!(found, []);
    let sizes: usize = (0..5).map(|number| bytes(number).len()).sum();
    assert_eq!((summary.read, summary.unreachable), (8, 1));
    assert!(summary.bytes > sizes as u64);
}

#[test]
fn every_kind_of_damage_is_found_and_nothing_is_touched_without_being_asked() {
    let place = Place::new();
    place.alter(&object(0));
    fs::set_permissions(place.file(&object(1)), fs::Permissions::from_mode(0o644)).unwrap();
    File::options().write(true).open(place.file(&object(2))).unwrap().set_len(4_999).unwrap();
    fs::set_permissions(place.file(&object(2)), fs::Permissions::from_mode(0o444)).unwrap();
    fs::remove_file(place.file(&object(4))).unwrap();
    place.alter(&Root::Delta(place.delta));
    let stray = place.store.objects_dir().join("0a/core");
    fs::create_dir_all(stray.parent().unwrap()).unwrap();
    fs::write(&stray, b"dump").unwrap();
    for repair in [false, false] {
        let (mut found, summary) = place.check(repair, &[]);
        assert!(found.iter().all(|finding| finding.mended.is_none()));
        assert_eq!(summary.mended, 0);
        found.sort_by_key(|finding| finding.fault.to_string());
        let faults: Vec<_> = found.into_iter().map(|finding| finding.fault).collect();
        let has = |wanted: &dyn Fn(&Fault) -> bool| {
            assert_eq!(faults.iter().filter(|fault| wanted(fault)).count(), 1)
        };
        has(&|fault| matches!(fault, Fault::Altered { what, .. } if *what == object(0)));
        has(&|fault| matches!(fault, Fault::Metadata { what } if *what == object(1)));
        has(
            &|fault| matches!(fault, Fault::WrongSize { what, expected: 5_000, found: 4_999 } if *what == object(2)),
        );
        has(&|fault| matches!(fault, Fault::Altered { what, .. } if *what == Root::Delta(place.delta)));
        has(&|fault| matches!(fault, Fault::Stray(path) if *path == stray));
        // What only the damaged delta and the garbage name is not known to be missing.
        assert_eq!(faults.len(), 5, "{faults:#?}");
    }
}

#[test]
fn a_missing_content_is_told_with_those_who_name_it() {
    let place = Place::new();
    fs::remove_file(place.file(&object(3))).unwrap();
    let (found, _) = place.check(true, &[]);
    let [Finding { fault: Fault::Missing { what, named_by }, mended: None }] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(*what, object(3));
    assert_eq!(*named_by, format!("tree {} of image one", place.tree));
}

#[test]
fn damage_is_put_aside_and_is_never_served() {
    let place = Place::new();
    let damaged = [object(0), Root::Tree(place.tree)];
    for root in &damaged {
        place.alter(root);
    }
    let (found, summary) = place.check(true, &[]);
    assert_eq!(found.iter().filter(|finding| matches!(finding.mended, Some(Mended::PutAside(_)))).count(), 2);
    assert_eq!(summary.mended, 0);
    let Root::Object(digest) = object(0) else { unreachable!() };
    assert!(matches!(place.store.open_object(&digest), Err(StoreError::MissingObject(_))));
    assert!(matches!(place.store.tree(&place.tree), Err(StoreError::MissingTree(_))));
    assert_eq!(fs::read_dir(place.store.quarantine_dir()).unwrap().count(), 2);
    // Who brings it again makes it whole.
    place.store.put_bytes(&bytes(0)).unwrap();
    place.store.put_tree(&tree_of(&[0, 1, 2, 3])).unwrap();
    assert_eq!(place.check(false, &[]).0, []);
}

#[test]
fn damage_is_mended_from_another_store_and_from_equal_files() {
    let place = Place::new();
    let other = Place::new();
    // The copies may be damaged as well.
    other.alter(&object(1));
    let files = tempfile::tempdir().unwrap();
    fs::create_dir(files.path().join("model")).unwrap();
    fs::write(files.path().join("model/wrong"), vec![9; LARGE]).unwrap();
    fs::write(files.path().join("model/weights"), bytes(0)).unwrap();
    fs::remove_file(other.file(&object(0))).unwrap();

    for root in [object(0), object(1), object(2), Root::Tree(place.tree), Root::Delta(place.delta)] {
        place.alter(&root);
    }
    fs::remove_file(place.file(&object(4))).unwrap();
    fs::set_permissions(place.file(&object(3)), fs::Permissions::from_mode(0o600)).unwrap();
    let (found, summary) = place.check(true, &[other.dir.path(), files.path()]);
    assert_eq!((summary.faults, summary.mended), (8, 6), "{found:#?}");
    let (found, _) = place.check(false, &[]);
    // No good copy of that one was anywhere.
    assert!(matches!(&found[..], [Finding { fault: Fault::Missing { what, .. }, .. }] if *what == object(1)));
    place.store.put_bytes(&bytes(1)).unwrap();
    place.store.verify_tree(&place.tree).unwrap();
    place.store.delta(&place.delta).unwrap();
}
