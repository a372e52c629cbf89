//! What mounts show, and how they end.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::sync::Arc;

use homeport_content::{Digest, FileContent, Leaf, LeafKind, MAX_DEPTH, Metadata, Timestamp, Tree};
use homeport_fs::{Backend, BackendChoice, FsError, MountRequest, SnapshotFs};
use homeport_store::StoreError;

use crate::observe::{assert_same, observe, unlinked};
use crate::place::{HOST_BASE, Place, everywhere, isolated};

/// Everything that a tree can hold.
fn varied(place: &Place) -> Tree {
    let mut tree =
        Tree::new(Metadata { mtime: Timestamp { seconds: 1, nanos: 1 }, ..Metadata::with_mode(0o1777) });
    let attribute = |name: &str, value: &[u8]| (Box::from(name.as_bytes()), Box::from(value));
    let special = |kind: LeafKind| Leaf {
        metadata: Metadata {
            mtime: Timestamp { seconds: -1_000_000_000, nanos: 999_999_999 },
            uid: 33,
            gid: 65_533,
            ..Metadata::with_mode(0o640)
        },
        kind,
    };
    let link = |target: Vec<u8>| Leaf {
        metadata: Metadata::with_mode(0o777),
        kind: LeafKind::Symlink(target.into()),
    };
    for (index, size) in [0, 1, 511, 512, 513, 4095, 4096, 4097, 200_000].into_iter().enumerate() {
        let mut leaf = place.file(0o644, &vec![index as u8; size]);
        leaf.metadata.mtime = Timestamp { seconds: 1 << 33, nanos: index as u32 };
        tree.insert_leaf(format!("sizes/{size}").as_bytes(), leaf).unwrap();
    }
    let mut capable = place.file(0o6755, &[3; 1000]);
    capable.metadata.xattrs = [
        attribute("security.capability", &[[1, 0, 0, 2, 0, 4].as_slice(), &[0; 14]].concat()),
        attribute("user.long", &[7; 3000]),
        attribute("trusted.overlay.opaque", b"y"),
    ]
    .into();
    tree.insert_leaf(b"capable", capable).unwrap();
    tree.insert_leaf(b"pipe", special(LeafKind::Fifo)).unwrap();
    tree.insert_leaf(b"null", special(LeafKind::CharDevice(0x103))).unwrap();
    tree.insert_leaf(b"disk", special(LeafKind::BlockDevice(0x1234_5678))).unwrap();
    for length in [1, 50, 1000, 2000, 3000] {
        let target = vec![b't'; length];
        tree.insert_leaf(format!("links/{length}").as_bytes(), link(target)).unwrap();
    }
    for number in 0..3000 {
        let mut leaf = place.file(0o600, &[]);
        leaf.metadata.mtime.nanos = number;
        tree.insert_leaf(format!("many/entry-{number}").as_bytes(), leaf).unwrap();
    }
    let shared = tree.insert_leaf(b"hard/one", place.file(0o644, &[1; 700])).unwrap();
    tree.insert_link(b"hard/two", shared).unwrap();
    tree.insert_link(b"three", shared).unwrap();
    tree.insert_leaf(b"00", place.file(0o644, b"named like a whiteout of the writer")).unwrap();
    tree.insert_leaf(b"name with spaces, \xff and \n", place.file(0o644, b"odd")).unwrap();
    tree.directory_mut(b"empty/deep", true).unwrap();
    tree
}

#[test]
fn mounts_show_every_kind_of_entry_as_it_is_in_the_tree() {
    everywhere(|place| {
        let tree = varied(place);
        let mount = place.readable(&[place.put(&tree)]);
        let shown = observe(mount.target());
        match place.fs.backend() {
            Backend::Erofs => assert_same(&shown, &tree, "the mount"),
            Backend::Linked => assert_same(&unlinked(&shown), &unlinked(&tree), "the mount"),
        }
        let written = fs::write(mount.target().join("new"), b"");
        assert_eq!(written.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
        mount.unmount().unwrap();
    });
}

#[test]
fn mapped_ids_show_on_all_that_a_mount_provides() {
    for choice in [BackendChoice::Erofs, BackendChoice::Linked] {
        isolated(|| {
            let place = Place::new(choice, true);
            let tree = varied(&place);
            let (_layer, mount) = place.writable(&[place.put(&tree)]);
            let owner = |path: &str| {
                let about = fs::symlink_metadata(mount.target().join(path)).unwrap();
                (about.uid(), about.gid())
            };
            assert_eq!(owner(""), (HOST_BASE, HOST_BASE));
            assert_eq!(owner("pipe"), (HOST_BASE + 33, HOST_BASE + 65_533));
            assert_eq!(owner("sizes/200000"), (HOST_BASE, HOST_BASE));
            mount.unmount().unwrap();
        });
    }
}

#[test]
fn upper_snapshots_hide_lower_ones_name_by_name() {
    everywhere(|place| {
        let tree = |files: &[(&str, &str)]| {
            let mut tree = Tree::default();
            for (path, text) in files {
                let leaf = place.file(0o644, text.as_bytes());
                tree.insert_leaf(path.as_bytes(), leaf).unwrap();
            }
            tree
        };
        let image = tree(&[("a", "image"), ("b/x", "image"), ("c/y", "image"), ("d", "image")]);
        let middle = tree(&[("a", "middle"), ("b/z", "middle"), ("c", "middle")]);
        let top = tree(&[("b/z", "top"), ("d/e", "top")]);
        let lowers = [&top, &middle, &image].map(|tree| place.put(tree));
        let mount = place.readable(&lowers);
        let mut expected = image;
        expected.overlay(&middle);
        expected.overlay(&top);
        let shown = observe(mount.target());
        assert_same(&unlinked(&shown), &unlinked(&expected), "the stacked mount");
        mount.unmount().unwrap();
    });
}

#[test]
fn mounts_of_one_image_share_it_and_end_one_by_one() {
    isolated(|| {
        let place = Place::new(BackendChoice::Auto, false);
        let id = place.put(&varied(&place));
        let mounts: Vec<_> = (0..20).map(|_| place.writable(&[id])).collect();
        for (number, (_, mount)) in mounts.iter().enumerate() {
            fs::write(mount.target().join("own"), number.to_string()).unwrap();
        }
        for (number, (layer, mount)) in mounts.into_iter().enumerate() {
            let target = mount.target().to_owned();
            assert_eq!(fs::read_to_string(target.join("own")).unwrap(), number.to_string());
            assert!(matches!(place.fs.new_layer("x/y"), Err(FsError::LayerName(_))));
            if number % 2 == 0 {
                mount.unmount().unwrap();
            } else {
                drop(mount);
            }
            assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
            layer.discard().unwrap();
        }
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert!(!table.contains(place.dir.path().to_str().unwrap()), "{table}");
    });
}

#[test]
fn a_mount_in_use_is_busy_and_its_layer_cannot_be_committed() {
    isolated(|| {
        let place = Place::new(BackendChoice::Auto, false);
        let id = place.put(&Tree::default());
        let (layer, mount) = place.writable(&[id]);
        let target = mount.target().to_owned();
        let file = File::create(target.join("open")).unwrap();
        let refused = mount.unmount().unwrap_err();
        assert!(matches!(refused, FsError::Busy { .. }), "{refused:?}");
        // It is gone for others, and still there for who has it open.
        assert!(!target.join("open").exists());
        file.write_all_at(b"late", 0).unwrap();
        let refused = place.commit(&layer, &[id], &[]).unwrap_err();
        assert!(matches!(refused, FsError::LayerMounted(_)), "{refused:?}");
    });
}

#[test]
fn failures_name_what_is_missing_and_leave_the_layer_usable() {
    everywhere(|place| {
        let known = [place.put(&Tree::default())];
        let layer = place.fs.new_layer("test").unwrap();
        let missing = place.dir.path().join("missing");
        let request =
            |lowers, target| MountRequest { lowers, layer: Some(&layer), target, id_map: place.map.as_ref() };
        let refused = place.fs.mount(request(&known, &missing)).unwrap_err();
        assert!(refused.to_string().contains("missing"), "{refused}");
        assert_eq!(refused.io().unwrap().kind(), ErrorKind::NotFound);

        let unknown = [Digest::of(b"unknown")];
        let refused = place.fs.mount(request(&unknown, &missing)).unwrap_err();
        let missing_tree = matches!(refused, FsError::Store(StoreError::MissingTree(_)));
        assert!(missing_tree, "{refused:?}");
        assert!(place.fs.mount(request(&[], &missing)).is_err());

        let mount = place.again(&known, &layer);
        symlink("x", mount.target().join("y")).unwrap();
        mount.unmount().unwrap();
    });
}

#[test]
fn an_erofs_image_has_a_uuid_of_its_own_and_is_the_same_when_rebuilt() {
    isolated(|| {
        let place = Place::new(BackendChoice::Erofs, false);
        let id = place.put(&varied(&place));
        let path = place.fs.prepare(&id).unwrap();
        let image = fs::read(&path).unwrap();
        assert_eq!(image[1072..1088], id.as_bytes()[..16]);
        fs::remove_file(&path).unwrap();
        assert_eq!(fs::read(place.fs.prepare(&id).unwrap()).unwrap(), image);
    });
}

#[test]
fn the_limits_of_a_tree_can_be_mounted() {
    everywhere(|place| {
        let mut tree = Tree::default();
        for length in 3960..=4000_usize {
            let leaf = Leaf {
                metadata: Metadata::with_mode(0o777),
                kind: LeafKind::Symlink(vec![b't'; length].into()),
            };
            tree.insert_leaf(format!("links/{length}").as_bytes(), leaf).unwrap();
        }
        let device = LeafKind::BlockDevice((1 << 32) - 1);
        let metadata = Metadata::with_mode(0o600);
        tree.insert_leaf(b"device", Leaf { metadata, kind: device }).unwrap();
        tree.directory_mut(&b"d/".repeat(MAX_DEPTH), true).unwrap();
        let long = vec![b'n'; 255];
        tree.insert_leaf(&long, place.file(0o644, b"long")).unwrap();
        let mount = place.readable(&[place.put(&tree)]);
        assert_same(&unlinked(&observe(mount.target())), &unlinked(&tree), "the mount");
        mount.unmount().unwrap();
    });
}

#[test]
fn a_missing_object_is_an_error_when_it_is_read() {
    isolated(|| {
        let place = Place::new(BackendChoice::Erofs, false);
        let mut tree = Tree::default();
        let digest = place.store.put_bytes(&[1; 3000]).unwrap();
        let content = FileContent::Object { digest, size: 3000 };
        let leaf = Leaf { metadata: Metadata::with_mode(0o644), kind: LeafKind::File(content) };
        tree.insert_leaf(b"file", leaf).unwrap();
        let mount = place.readable(&[place.put(&tree)]);
        fs::remove_file(place.store.object_path(&digest)).unwrap();
        assert!(fs::read(mount.target().join("file")).is_err());
        place.store.put_bytes(&[1; 3000]).unwrap();
        assert_eq!(fs::read(mount.target().join("file")).unwrap(), [1; 3000]);
        mount.unmount().unwrap();
    });
}

#[test]
fn what_a_crash_left_is_removed_at_the_next_start() {
    isolated(|| {
        let place = Place::new(BackendChoice::Auto, false);
        let layer = place.fs.new_layer("lost").unwrap();
        let lost = layer.dir().to_owned();
        std::mem::forget(layer);
        let dir = lost.ancestors().nth(2).unwrap().to_owned();
        fs::write(dir.join("scratch/half"), b"half").unwrap();
        // While it is open elsewhere, nothing is taken away.
        drop(SnapshotFs::open(Arc::clone(&place.store), &dir, BackendChoice::Auto).unwrap());
        assert!(lost.exists());
        let Place { fs: running, store, dir: _kept, .. } = place;
        drop(running);
        drop(SnapshotFs::open(store, &dir, BackendChoice::Auto).unwrap());
        assert!(!lost.exists());
        assert_eq!(count(&dir.join("scratch")), 0);
    });
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}
