//! A disk without space: errors that say so, nothing lost, and work that goes on. Needs root, for a
//! small file system of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use homeport_content::{Digest, FileContent, Leaf, LeafKind, Metadata, SnapshotId, Tree};
use homeport_store::{Root, Store, StoreError};

const MIB: usize = 1 << 20;

/// An ext4 of 48 MiB in a file, mounted in a mount namespace of the test's own.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    fn new() -> Disk {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        File::create(&image).unwrap().set_len(48 * MIB as u64).unwrap();
        let disk = Disk { dir };
        fs::create_dir(disk.root()).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(disk.root()));
        disk
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Leaves no block free.
    fn fill(&self) {
        let mut file = File::create(self.root().join("filler")).unwrap();
        for size in [MIB, 4096] {
            while file.write_all(&vec![1; size]).and_then(|()| file.sync_all()).is_ok() {}
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.root().join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The loop device goes with the mount.
        let _ = Command::new("umount").arg(self.root()).status();
    }
}

fn run(command: &mut Command) {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

fn isolated(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: the thread shares no memory-unsafe state through its namespaces.
            let unshared = unsafe { libc::unshare(libc::CLONE_NEWNS) };
            assert_eq!(unshared, 0, "unshare: {}", std::io::Error::last_os_error());
            run(Command::new("mount").args(["--make-rprivate", "/"]));
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn bytes(number: u8, size: usize) -> Vec<u8> {
    vec![number; size]
}

fn commit(store: &Store, numbers: &[u8], size: usize) -> Result<SnapshotId, StoreError> {
    let batch = store.batch()?;
    let mut tree = Tree::default();
    for number in numbers {
        let digest = batch.put_bytes(&bytes(*number, size))?;
        let content = FileContent::Object { digest, size: size as u64 };
        let leaf = Leaf { metadata: Metadata::with_mode(0o644), kind: LeafKind::File(content) };
        tree.insert_leaf(&[b'a' + *number], leaf).unwrap();
    }
    batch.publish_with_tree(&tree)
}

fn scratch_is_empty(store: &Path) {
    assert_eq!(fs::read_dir(store.join("scratch")).unwrap().count(), 0);
}

#[test]
fn what_does_not_fit_is_refused_with_a_sentence_and_nothing_is_lost() {
    isolated(|| {
        let disk = Disk::new();
        let dir = disk.root().join("store");
        let store = Store::open(&dir).unwrap();
        let kept = commit(&store, &[1, 2, 3], 100_000).unwrap();
        disk.fill();
        for size in [100_000, 20 * MIB] {
            let refused = commit(&store, &[4, 5], size).unwrap_err();
            assert!(matches!(refused, StoreError::NoSpace { .. }), "{refused:?}");
            let text = refused.to_string();
            assert!(text.contains("no space is left") && text.contains("homeport gc"), "{text}");
            assert!(!store.contains(&Digest::of(&bytes(4, size))));
            scratch_is_empty(&dir);
        }
        // What is here can be read and found again, by those who start now as well.
        assert_eq!(store.verify_tree(&kept).unwrap(), 300_000);
        drop(store);
        let store = Store::open(&dir).unwrap();
        assert_eq!(store.verify_tree(&kept).unwrap(), 300_000);
        disk.make_room();
        let more = commit(&store, &[4, 5], 100_000).unwrap();
        assert_eq!(store.verify_tree(&more).unwrap(), 200_000);
    });
}

#[test]
fn garbage_can_be_collected_on_a_full_disk_and_makes_room() {
    isolated(|| {
        let disk = Disk::new();
        let store = Arc::new(Store::open(&disk.root().join("store")).unwrap());
        let kept = commit(&store, &[1, 2], 100_000).unwrap();
        commit(&store, &[3, 4], 5 * MIB).unwrap();
        disk.fill();
        assert!(matches!(commit(&store, &[5], MIB), Err(StoreError::NoSpace { .. })));
        let mut collection = store.collection(Duration::ZERO);
        collection.mark(Root::Tree(kept));
        let swept = collection.sweep(false, &|_| ()).unwrap();
        assert!(swept.bytes >= 10 * MIB as u64, "{swept:?}");
        commit(&store, &[5], MIB).unwrap();
        store.verify_tree(&kept).unwrap();
    });
}
