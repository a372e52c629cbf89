//! The store's promises: nothing half-written under a digest, nothing left behind, damage seen.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{self, Cursor, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use homeport_content::{Digest, FileContent, Leaf, LeafKind, Metadata, Tree};
use homeport_store::{Store, StoreError, digest_file};

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found
}

fn fresh() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

fn tree_of(content: FileContent) -> Tree {
    let mut tree = Tree::default();
    let leaf = Leaf { metadata: Metadata::with_mode(0o644), kind: LeafKind::File(content) };
    tree.insert_leaf(b"dir/file", leaf).unwrap();
    tree
}

#[test]
fn objects_are_found_under_their_digest() {
    let (_dir, store) = fresh();
    let bytes = vec![7; 100_000];
    let digest = store.put_bytes(&bytes).unwrap();
    assert_eq!(digest, Digest::of(&bytes));
    assert_eq!(store.put_reader(Cursor::new(&bytes)).unwrap(), (digest, 100_000));
    let hex = digest.to_string();
    let path = store.dir().join("objects").join(&hex[..2]).join(&hex[2..]);
    assert_eq!(store.object_path(&digest), path);
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(files_below(&store.objects_dir()), [path]);
    assert_eq!(store.verify_object(&digest).unwrap(), 100_000);
    let missing = Digest::of(b"missing");
    assert!(!store.contains(&missing));
    let refused = store.open_object(&missing).unwrap_err();
    assert!(matches!(refused, StoreError::MissingObject(digest) if digest == missing));
}

#[test]
fn small_contents_are_inline_and_large_ones_objects() {
    let (_dir, store) = fresh();
    for size in [0, 512, 513, 70_000] {
        let bytes = vec![1; size];
        let content = store.file_content(Cursor::new(&bytes)).unwrap();
        assert_eq!(matches!(content, FileContent::Inline(_)), size <= 512, "{size}");
        assert_eq!(content.size(), size as u64);
        assert_eq!(store.read_content(&content).unwrap(), bytes);
    }
    assert_eq!(files_below(&store.objects_dir()).len(), 2);
}

/// Gives some bytes, then fails.
struct Failing(u64);

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::Error::other("the network went away"));
        }
        let length = buffer.len().min(self.0 as usize);
        buffer[..length].fill(1);
        self.0 -= length as u64;
        Ok(length)
    }
}

#[test]
fn an_interrupted_write_leaves_nothing() {
    let (_dir, store) = fresh();
    for length in [0, 100, 600, 1 << 20] {
        let refused = store.put_reader(Failing(length)).unwrap_err();
        assert!(matches!(refused, StoreError::Source(_)), "{refused:?}");
        assert!(store.file_content(Failing(length)).is_err());
    }
    let batch = store.batch().unwrap();
    batch.put_bytes(&[1; 1000]).unwrap();
    assert!(batch.put_reader(Failing(1 << 20)).is_err());
    drop(batch);
    assert!(!store.contains(&Digest::of(&[1; 1000])));
    let mut left = files_below(store.dir());
    left.sort();
    assert_eq!(left, ["clock", "lock"].map(|name| store.dir().join(name)));
}

#[test]
fn a_batch_shows_nothing_before_it_is_published() {
    let (_dir, store) = fresh();
    let batch = store.batch().unwrap();
    let digests: Vec<_> = (0..50_u8).map(|n| batch.put_bytes(&[n; 900]).unwrap()).collect();
    assert!(digests.iter().all(|digest| !store.contains(digest)));
    batch.publish().unwrap();
    assert!(digests.iter().all(|digest| store.verify_object(digest).unwrap() == 900));
    assert_eq!(fs::read_dir(store.dir().join("scratch")).unwrap().count(), 0);
}

#[test]
fn an_adopted_file_becomes_a_plain_object_without_being_copied() {
    let (_dir, store) = fresh();
    let scratch = store.scratch_dir().unwrap();
    let path = scratch.path().join("file");
    fs::write(&path, vec![5; 10_000]).unwrap();
    std::os::unix::fs::chown(&path, Some(1000), Some(1000)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
    rustix::fs::setxattr(&path, "user.note", b"x", rustix::fs::XattrFlags::empty()).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    let (digest, size) = store.adopt_file(&path).unwrap();
    assert_eq!((digest, size), (Digest::of(&vec![5; 10_000]), 10_000));
    assert!(!path.exists());
    let object = fs::metadata(store.object_path(&digest)).unwrap();
    assert_eq!(object.ino(), inode);
    assert_eq!((object.uid(), object.gid(), object.mode() & 0o7777), (0, 0, 0o444));
    let mut names = [0_u8; 100];
    assert_eq!(rustix::fs::listxattr(store.object_path(&digest), &mut names[..]).unwrap(), 0);

    // A second file with the same bytes is not kept.
    fs::write(&path, vec![5; 10_000]).unwrap();
    assert_eq!(store.adopt_file(&path).unwrap(), (digest, size));
    assert!(!path.exists());
    assert_eq!(fs::metadata(store.object_path(&digest)).unwrap().ino(), inode);

    symlink("/etc/passwd", &path).unwrap();
    assert!(matches!(store.adopt_file(&path), Err(StoreError::NotAFile(_))));
}

#[test]
fn a_file_from_another_file_system_is_copied_in() {
    let (_dir, store) = fresh();
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = elsewhere.path().join("file");
    fs::write(&path, [6; 5000]).unwrap();
    let (digest, _) = store.adopt_file(&path).unwrap();
    assert_eq!(store.verify_object(&digest).unwrap(), 5000);
    assert!(!path.exists());
}

#[test]
fn concurrent_writers_of_the_same_objects_agree() {
    let (_dir, store) = fresh();
    let contents: Vec<Vec<u8>> = (0..20_u8).map(|n| vec![n; 3000 + usize::from(n)]).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let batch = store.batch().unwrap();
                for bytes in &contents {
                    batch.put_bytes(bytes).unwrap();
                }
                batch.publish().unwrap();
                let content = store.file_content(Cursor::new(&contents[3])).unwrap();
                store.put_tree(&tree_of(content)).unwrap();
            });
        }
    });
    assert_eq!(files_below(&store.objects_dir()).len(), contents.len());
    for bytes in &contents {
        store.verify_object(&Digest::of(bytes)).unwrap();
    }
}

#[test]
fn trees_come_back_and_bad_ones_are_refused() {
    let (dir, store) = fresh();
    let tree = tree_of(store.file_content(Cursor::new(vec![1; 4000])).unwrap());
    let id = store.put_tree(&tree).unwrap();
    assert_eq!(id, tree.id());
    assert_eq!(store.put_tree(&tree).unwrap(), id);
    drop(store);
    let store = Store::open(&dir.path().join("store")).unwrap();
    assert_eq!(*store.tree(&id).unwrap(), tree);
    assert_eq!(store.verify_tree(&id).unwrap(), 4000);

    let too_long = tree_of(FileContent::Inline(vec![0; 513].into()));
    let refused = store.put_tree(&too_long).unwrap_err();
    assert!(matches!(refused, StoreError::InvalidTree(_)), "{refused:?}");
    let missing = Digest::of(b"no tree");
    let refused = store.tree(&missing).unwrap_err();
    assert!(matches!(refused, StoreError::MissingTree(id) if id == missing));
}

#[test]
fn damage_is_noticed() {
    let (dir, store) = fresh();
    let content = store.file_content(Cursor::new(vec![1; 4000])).unwrap();
    let FileContent::Object { digest, .. } = content else { panic!("inline") };
    let id = store.put_tree(&tree_of(content)).unwrap();
    let object = store.object_path(&digest);
    fs::write(&object, vec![2; 4000]).unwrap();
    let refused = store.verify_tree(&id).unwrap_err();
    assert!(matches!(&refused, StoreError::Damaged { path, .. } if *path == object), "{refused:?}");
    let lying = tree_of(FileContent::Object { digest: store.put_bytes(&[3; 700]).unwrap(), size: 701 });
    let refused = store.verify_tree(&store.put_tree(&lying).unwrap()).unwrap_err();
    let wrong = matches!(refused, StoreError::WrongSize { expected: 701, found: 700, .. });
    assert!(wrong, "{refused:?}");

    let hex = id.to_string();
    let path = store.dir().join("trees").join(&hex[..2]).join(&hex[2..]);
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, &bytes).unwrap();
    drop(store);
    let store = Store::open(&dir.path().join("store")).unwrap();
    assert!(matches!(store.tree(&id), Err(StoreError::Damaged { .. })));
}

#[test]
fn scratch_is_emptied_at_the_next_start_unless_the_store_is_in_use() {
    let (dir, store) = fresh();
    let scratch = store.dir().join("scratch/work-left");
    fs::create_dir(&scratch).unwrap();
    fs::write(scratch.join("half"), b"half").unwrap();
    let path = dir.path().join("store");
    drop(Store::open(&path).unwrap());
    assert!(scratch.exists());
    drop(store);
    drop(Store::open(&path).unwrap());
    assert!(!scratch.exists());
}

#[test]
fn holes_are_hashed_as_the_zeros_that_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sparse");
    let file = fs::File::options().create_new(true).read(true).write(true).open(&path).unwrap();
    file.set_len(3_000_001).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", 1_500_000).unwrap();
    let expected = Digest::of(&fs::read(&path).unwrap());
    assert_eq!(digest_file(&file).unwrap(), (expected, 3_000_001));
}
