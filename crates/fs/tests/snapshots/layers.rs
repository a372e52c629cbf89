//! What commits make of what lies in a layer.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use homeport_content::{EntryRef, FileContent, LeafKind, Metadata, SnapshotId, Timestamp, Tree};
use homeport_fs::{BackendChoice, FsError};

use crate::place::{HOST_BASE, Place, acting_as_container_root, everywhere, isolated};

fn paths(place: &Place, id: &SnapshotId) -> Vec<String> {
    let tree = place.store.tree(id).unwrap();
    tree.walk().map(|(path, _)| String::from_utf8(path).unwrap()).collect()
}

fn metadata(place: &Place, id: &SnapshotId, path: &str) -> Metadata {
    let tree = place.store.tree(id).unwrap();
    tree.get(path.as_bytes()).unwrap().metadata().clone()
}

fn content(place: &Place, id: &SnapshotId, path: &str) -> FileContent {
    let tree = place.store.tree(id).unwrap();
    match tree.get(path.as_bytes()) {
        Some(EntryRef::Leaf(_, leaf)) => match &leaf.kind {
            LeafKind::File(content) => content.clone(),
            other => panic!("`{path}` is {other:?}"),
        },
        other => panic!("`{path}` is {other:?}"),
    }
}

fn objects(place: &Place) -> usize {
    let shards = fs::read_dir(place.store.objects_dir()).unwrap();
    shards.map(|shard| fs::read_dir(shard.unwrap().path()).unwrap().count()).sum()
}

fn has_mark(path: &Path, name: &str) -> bool {
    rustix::fs::lgetxattr(path, name, &mut [0_u8; 300][..]).is_ok()
}

/// `dir/{one,two}`, both large, and `other/three`, small.
fn image(place: &Place) -> SnapshotId {
    let mut tree = Tree::new(Metadata {
        mtime: Timestamp { seconds: 1_500_000_000, nanos: 1 },
        ..Metadata::with_mode(0o755)
    });
    for (path, bytes) in [("dir/one", vec![1; 4000]), ("dir/two", vec![2; 4000]), ("other/three", vec![3])] {
        tree.insert_leaf(path.as_bytes(), place.file(0o644, &bytes)).unwrap();
    }
    place.put(&tree)
}

#[test]
fn removed_files_and_directories_are_gone() {
    everywhere(|place| {
        let image = image(place);
        let id = place.changed(&[image], |root| {
            fs::remove_file(root.join("dir/one")).unwrap();
            fs::remove_dir_all(root.join("other")).unwrap();
        });
        assert_eq!(paths(place, &id), ["dir", "dir/two"]);
    });
}

#[test]
fn a_directory_made_anew_hides_what_the_old_one_had() {
    everywhere(|place| {
        let image = image(place);
        let (layer, mount) = place.writable(&[image]);
        acting_as_container_root(place.map.is_some(), || {
            let dir = mount.target().join("dir");
            fs::remove_dir_all(&dir).unwrap();
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("new"), b"new").unwrap();
        });
        mount.unmount().unwrap();
        assert!(has_mark(&layer.dir().join("upper/dir"), "trusted.overlay.opaque"));
        let id = place.commit(&layer, &[image], &[]).unwrap();
        assert_eq!(paths(place, &id), ["dir", "dir/new", "other", "other/three"]);
    });
}

#[test]
fn a_moved_directory_takes_its_content_and_later_changes_along() {
    everywhere(|place| {
        let image = image(place);
        let before = objects(place);
        let (layer, mount) = place.writable(&[image]);
        acting_as_container_root(place.map.is_some(), || {
            let root = mount.target();
            fs::rename(root.join("dir"), root.join("other/moved")).unwrap();
            fs::rename(root.join("other"), root.join("another")).unwrap();
            fs::remove_file(root.join("another/moved/one")).unwrap();
            fs::write(root.join("another/moved/new"), b"new").unwrap();
        });
        mount.unmount().unwrap();
        let upper = layer.dir().join("upper");
        assert!(has_mark(&upper.join("another"), "trusted.overlay.redirect"));
        assert!(has_mark(&upper.join("another/moved"), "trusted.overlay.redirect"));
        let id = place.commit(&layer, &[image], &[]).unwrap();
        let expected =
            ["another", "another/moved", "another/moved/new", "another/moved/two", "another/three"];
        assert_eq!(paths(place, &id), expected);
        assert_eq!(content(place, &id, "another/moved/two"), content(place, &image, "dir/two"));
        assert_eq!(objects(place), before);
    });
}

#[test]
fn changed_metadata_keeps_the_content_without_reading_it() {
    everywhere(|place| {
        let image = image(place);
        let (layer, mount) = place.writable(&[image]);
        acting_as_container_root(place.map.is_some(), || {
            let root = mount.target();
            fs::set_permissions(root.join("dir/one"), fs::Permissions::from_mode(0o4711)).unwrap();
            fs::rename(root.join("dir/two"), root.join("other/renamed")).unwrap();
            fs::hard_link(root.join("other/renamed"), root.join("a-link")).unwrap();
        });
        mount.unmount().unwrap();
        let upper = layer.dir().join("upper");
        for path in ["dir/one", "other/renamed", "a-link"] {
            assert!(has_mark(&upper.join(path), "trusted.overlay.metacopy"), "{path}");
        }
        let id = place.commit(&layer, &[image], &[]).unwrap();
        assert_eq!(metadata(place, &id, "dir/one").mode, 0o4711);
        assert_eq!(content(place, &id, "dir/one"), content(place, &image, "dir/one"));
        assert_eq!(content(place, &id, "other/renamed"), content(place, &image, "dir/two"));
        let tree = place.store.tree(&id).unwrap();
        assert_eq!(tree.get(b"a-link"), tree.get(b"other/renamed"));
    });
}

#[test]
fn excluded_paths_and_the_mount_points_for_them_leave_no_trace() {
    everywhere(|place| {
        let image = image(place);
        let exclude = ["proc", "dir/hosts", "/__modal/", "etc/resolv.conf", "run/deep/point"];
        let touch = |root: &Path| {
            for dir in ["proc", "__modal/deps", "etc", "run/deep/point"] {
                fs::create_dir_all(root.join(dir)).unwrap();
            }
            for file in ["proc/file", "dir/hosts", "__modal/deps/x", "etc/resolv.conf"] {
                fs::write(root.join(file), vec![9; 1000]).unwrap();
            }
        };
        let (layer, mount) = place.writable(&[image]);
        touch(mount.target());
        mount.unmount().unwrap();
        assert_eq!(place.commit(&layer, &[image], &exclude).unwrap(), image);

        let (layer, mount) = place.writable(&[image]);
        touch(mount.target());
        fs::write(mount.target().join("etc/passwd"), b"root").unwrap();
        mount.unmount().unwrap();
        let id = place.commit(&layer, &[image], &exclude).unwrap();
        let expected = ["dir", "dir/one", "dir/two", "etc", "etc/passwd", "other", "other/three"];
        assert_eq!(paths(place, &id), expected);
    });
}

#[test]
fn entries_of_other_snapshots_do_not_enter_the_image() {
    everywhere(|place| {
        let image = image(place);
        let mut extra = Tree::new(Metadata::with_mode(0o700));
        for path in ["pkg/modal/init", "dir/extra", "opt/tool"] {
            extra.insert_leaf(path.as_bytes(), place.file(0o644, &[5; 900])).unwrap();
        }
        extra.directory_mut(b"dir", false).unwrap().metadata.mode = 0o711;
        let lowers = [place.put(&extra), image];
        let (layer, mount) = place.writable(&lowers);
        let root = mount.target().to_owned();
        assert!(root.join("pkg/modal/init").exists() && root.join("dir/extra").exists());
        acting_as_container_root(place.map.is_some(), || {
            fs::create_dir(root.join("pkg/modal/__pycache__")).unwrap();
            fs::write(root.join("pkg/modal/__pycache__/x"), b"x").unwrap();
            fs::set_permissions(root.join("dir/extra"), fs::Permissions::from_mode(0o600)).unwrap();
            fs::write(root.join("dir/new"), b"new").unwrap();
            fs::rename(root.join("opt/tool"), root.join("tool")).unwrap();
        });
        mount.unmount().unwrap();
        let id = place.commit(&layer, &lowers, &["pkg"]).unwrap();
        let expected = ["dir", "dir/extra", "dir/new", "dir/one", "dir/two", "other", "other/three", "tool"];
        assert_eq!(paths(place, &id), expected);
        // The other snapshot only hid the modes of these.
        assert_eq!(metadata(place, &id, "").mode, 0o755);
        assert_eq!(metadata(place, &id, "dir").mode, 0o755);
    });
}

#[test]
fn equal_files_of_two_images_are_one_object() {
    everywhere(|place| {
        let image = image(place);
        let before = objects(place);
        let write = |name: &'static str| {
            place.changed(&[image], move |root| fs::write(root.join(name), [8; 5000]).unwrap())
        };
        let (one, two) = (write("left"), write("right"));
        let object = content(place, &one, "left");
        assert_eq!(object, content(place, &two, "right"));
        assert_eq!(objects(place), before + 1);
        if place.fs.backend() == homeport_fs::Backend::Erofs {
            let FileContent::Object { digest, .. } = object else { panic!("inline") };
            let object = fs::metadata(place.store.object_path(&digest)).unwrap();
            assert_eq!((object.mode() & 0o7777, object.uid(), object.nlink()), (0o444, 0, 1));
        }
    });
}

#[test]
fn the_same_changes_give_the_same_snapshot() {
    everywhere(|place| {
        let image = image(place);
        let change = |root: &Path| {
            fs::write(root.join("dir/one"), [4; 700]).unwrap();
            fs::write(root.join("dir/small"), [4; 7]).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(1_234_567_890);
            for path in ["dir/one", "dir/small", "dir"] {
                File::open(root.join(path)).unwrap().set_modified(time).unwrap();
            }
        };
        assert_eq!(place.changed(&[image], change), place.changed(&[image], change));
        assert_eq!(place.changed(&[image], |_| ()), image);
    });
}

#[test]
fn sockets_are_dropped_and_sparse_files_stay_sparse() {
    everywhere(|place| {
        let image = image(place);
        let id = place.changed(&[image], |root| {
            UnixListener::bind(root.join("dir/socket")).unwrap();
            let sparse = File::create(root.join("sparse")).unwrap();
            sparse.set_len(256 << 20).unwrap();
            sparse.write_all_at(b"data", 100 << 20).unwrap();
        });
        assert!(!paths(place, &id).contains(&"dir/socket".to_owned()));
        let FileContent::Object { digest, size } = content(place, &id, "sparse") else {
            panic!("inline");
        };
        assert_eq!(size, 256 << 20);
        let object = fs::metadata(place.store.object_path(&digest)).unwrap();
        assert!(object.blocks() * 512 < 1 << 20, "{} blocks", object.blocks());
        assert_eq!(place.store.verify_object(&digest).unwrap(), size);
    });
}

#[test]
fn a_container_with_its_own_user_namespace_owns_what_it_sees_and_writes() {
    for choice in [BackendChoice::Erofs, BackendChoice::Linked] {
        isolated(|| {
            let place = Place::new(choice, true);
            let image = image(&place);
            let (layer, mount) = place.writable(&[image]);
            let userns = place.map.as_ref().unwrap().userns.as_raw_fd();
            let script = "set -e; test $(id -u) = 0; test $(stat -c %u dir/one) = 0
                echo more >> dir/one; mkdir made; chown 33:34 made; echo '#!' > made/tool
                chmod 6755 made/tool; chmod 600 dir/two; rm -r other; mv made dir/made
                ln dir/made/tool link; ln -s /dir/one symlink; mkfifo pipe
                python3 -c 'import os; os.setxattr(\"dir/made/tool\", \"security.capability\",
                    bytes([1, 0, 0, 2, 0, 4] + [0] * 14))'";
            let mut command = Command::new("sh");
            command.args(["-c", script]).current_dir(mount.target());
            // SAFETY: the child makes system calls only, with a descriptor that is open there.
            unsafe {
                command.pre_exec(move || {
                    let joined = libc::setns(userns, libc::CLONE_NEWUSER) == 0
                        && libc::setgroups(0, std::ptr::null()) == 0
                        && libc::setresgid(0, 0, 0) == 0
                        && libc::setresuid(0, 0, 0) == 0;
                    if joined { Ok(()) } else { Err(std::io::Error::last_os_error()) }
                });
            }
            let status = command.status().unwrap();
            assert!(status.success(), "{status}");
            let written = fs::metadata(layer.dir().join("upper/dir/one")).unwrap();
            assert_eq!(written.uid(), HOST_BASE);
            mount.unmount().unwrap();
            let id = place.commit(&layer, &[image], &[]).unwrap();
            let found = paths(&place, &id);
            let expected =
                ["dir", "dir/made", "dir/made/tool", "dir/one", "dir/two", "link", "pipe", "symlink"];
            assert_eq!(found, expected);
            let made = metadata(&place, &id, "dir/made");
            assert_eq!((made.uid, made.gid), (33, 34));
            let tool = metadata(&place, &id, "link");
            assert_eq!((tool.mode, tool.uid, tool.gid), (0o6755, 0, 0));
            // The capability is plain again, not one of a namespace.
            let capability = &tool.xattrs[b"security.capability".as_slice()];
            assert_eq!(capability[..6], [1, 0, 0, 2, 0, 4]);
            assert_eq!(capability.len(), 20);
            assert_eq!(metadata(&place, &id, "dir/two").uid, 0);
        });
    }
}

#[test]
fn paths_longer_than_the_kernel_takes_are_committed() {
    isolated(|| {
        let place = Place::new(BackendChoice::Erofs, false);
        let image = image(&place);
        let id = place.changed(&[image], |root| {
            let mut dir = File::open(root).unwrap();
            let name = "n".repeat(200);
            for _ in 0..60 {
                rustix::fs::mkdirat(&dir, &*name, rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
                dir = open_in(&dir, &name, libc::O_RDONLY | libc::O_DIRECTORY);
            }
            let flags = libc::O_CREAT | libc::O_WRONLY;
            open_in(&dir, "deepest", flags).write_all(&[6; 3000]).unwrap();
        });
        let path = vec!["n".repeat(200); 60].join("/") + "/deepest";
        assert_eq!(content(&place, &id, &path).size(), 3000);
        place.readable(&[id]).unmount().unwrap();
    });
}

fn open_in(dir: &File, name: &str, flags: libc::c_int) -> File {
    let name = std::ffi::CString::new(name).unwrap();
    // SAFETY: the name is a C string, and the result is checked before it is owned.
    unsafe {
        let fd = libc::openat(dir.as_raw_fd(), name.as_ptr(), flags | libc::O_CLOEXEC, 0o644);
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        File::from(OwnedFd::from_raw_fd(fd))
    }
}

#[test]
fn a_layer_is_committed_once_unmounted_and_over_its_own_snapshots() {
    isolated(|| {
        let place = Place::new(BackendChoice::Auto, false);
        let image = image(&place);
        let unused = place.fs.new_layer("unused").unwrap();
        assert_eq!(place.commit(&unused, &[image], &[]).unwrap(), image);
        let (layer, mount) = place.writable(&[image]);
        symlink("x", mount.target().join("link")).unwrap();
        let refused = place.commit(&layer, &[image], &[]);
        assert!(matches!(refused, Err(FsError::LayerMounted(_))), "{refused:?}");
        mount.unmount().unwrap();

        let other = place.put(&Tree::default());
        let refused = place.commit(&layer, &[other], &[]);
        assert!(matches!(refused, Err(FsError::LayerOfOthers(_))), "{refused:?}");

        // The same layer again, as after a container's restart.
        place.again(&[image], &layer).unmount().unwrap();
        let id = place.commit(&layer, &[image], &[]).unwrap();
        assert!(paths(&place, &id).contains(&"link".to_owned()));
        let refused = place.commit(&layer, &[image], &[]);
        assert!(matches!(refused, Err(FsError::LayerSpent(_))), "{refused:?}");
        let dir = layer.dir().to_owned();
        layer.discard().unwrap();
        assert!(!dir.exists());
    });
}

#[test]
fn marks_that_are_not_understood_are_refused() {
    isolated(|| {
        let place = Place::new(BackendChoice::Auto, false);
        let image = image(&place);
        let cases: [(&str, &str, &[u8]); 3] = [
            ("dir", "trusted.overlay.opaque", b"x"),
            ("dir", "trusted.overlay.redirect", b"/nowhere"),
            ("dir/one", "trusted.overlay.redirect", b"/other/missing"),
        ];
        for (path, name, value) in cases {
            let (layer, mount) = place.writable(&[image]);
            let mode = fs::Permissions::from_mode(0o700);
            fs::set_permissions(mount.target().join("dir/one"), mode).unwrap();
            mount.unmount().unwrap();
            let marked = layer.dir().join("upper").join(path);
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::lsetxattr(&marked, name, value, flags).unwrap();
            let refused = place.commit(&layer, &[image], &[]).unwrap_err();
            assert!(matches!(refused, FsError::LayerEntry { .. }), "{refused:?}");
            assert!(refused.to_string().contains(&format!("`{path}`")), "{refused}");
        }
    });
}
