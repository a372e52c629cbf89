//! Random operations through a mount, and the same on a plain directory: the snapshot must be
//! what the directory is, and a mount of the snapshot must show it.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use homeport_content::{Leaf, LeafKind, Metadata, Timestamp, Tree};
use homeport_fs::{Backend, BackendChoice};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lsetxattr, makedev, mknodat, utimensat,
};

use crate::observe::{assert_same, observe, unlinked};
use crate::place::{HOST_BASE, Place, acting_as_container_root, isolated};

#[derive(Debug, Clone)]
enum Op {
    Write(usize, u8, usize),
    Append(usize, u8),
    Truncate(usize, u64),
    Mkdir(usize),
    Remove(usize),
    Rename(usize, usize),
    Link(usize, usize),
    Symlink(usize, u8),
    Fifo(usize),
    Device(usize, u8),
    Chmod(usize, u32),
    Chown(usize, u32, u32),
    Attribute(usize, u8, u8),
}

/// Few places, so that operations meet.
const PATHS: [&str; 18] = [
    "a",
    "b",
    "c",
    "a/a",
    "a/b",
    "a/c",
    "b/a",
    "b/b",
    "a/a/a",
    "a/a/b",
    "a/b/a",
    "b/a/a",
    "b/a/b",
    "c/a",
    "a/a/a/a",
    "lib",
    "lib/big",
    "lib/sub/small",
];

const ATTRIBUTES: [&str; 4] =
    ["trusted.kept", "user.note", "trusted.overlay.opaque", "trusted.overlay.metacopy"];

fn op() -> impl Strategy<Value = Op> {
    let path = || 0..PATHS.len();
    prop_oneof![
        4 => (path(), any::<u8>(), prop::sample::select(vec![0_usize, 9, 512, 513, 5000]))
            .prop_map(|(path, byte, size)| Op::Write(path, byte, size)),
        2 => (path(), any::<u8>()).prop_map(|(path, byte)| Op::Append(path, byte)),
        1 => (path(), prop::sample::select(vec![0_u64, 100, 600, 70_000]))
            .prop_map(|(path, size)| Op::Truncate(path, size)),
        4 => path().prop_map(Op::Mkdir),
        2 => path().prop_map(Op::Remove),
        4 => (path(), path()).prop_map(|(from, to)| Op::Rename(from, to)),
        2 => (path(), path()).prop_map(|(from, to)| Op::Link(from, to)),
        1 => (path(), any::<u8>()).prop_map(|(path, byte)| Op::Symlink(path, byte)),
        1 => path().prop_map(Op::Fifo),
        1 => (path(), 1..255_u8).prop_map(|(path, minor)| Op::Device(path, minor)),
        2 => (path(), 0..0o7777_u32).prop_map(|(path, mode)| Op::Chmod(path, mode)),
        1 => (path(), 0..3_u32, 0..3_u32).prop_map(|(path, uid, gid)| Op::Chown(path, uid, gid)),
        2 => (path(), any::<u8>(), any::<u8>())
            .prop_map(|(path, name, value)| Op::Attribute(path, name, value)),
    ]
}

/// Does one operation below `root`, whose ids begin at `base`, and sets the times of what it
/// touched to `now`.
fn apply(op: &Op, root: &Path, base: u32, now: i64) -> io::Result<()> {
    let at = |index: usize| root.join(PATHS[index]);
    // A parent may be reached through a symbolic link.
    let parent = |index: usize| at(index).parent().unwrap().canonicalize();
    let regular = |path: &Path| match fs::symlink_metadata(path)?.is_file() {
        true => Ok(()),
        false => Err(io::Error::other("not a file")),
    };
    let mut touched: Vec<PathBuf> = Vec::new();
    match op {
        Op::Write(path, byte, size) => {
            let path = at(*path);
            if path.symlink_metadata().is_ok() {
                regular(&path)?;
            } else {
                touched.push(path.parent().unwrap().canonicalize()?);
            }
            fs::write(&path, vec![*byte; *size])?;
            touched.push(path);
        }
        Op::Append(path, byte) => {
            regular(&at(*path))?;
            File::options().append(true).open(at(*path))?.write_all(&[*byte; 30])?;
            touched.push(at(*path));
        }
        Op::Truncate(path, size) => {
            regular(&at(*path))?;
            File::options().write(true).open(at(*path))?.set_len(*size)?;
            touched.push(at(*path));
        }
        Op::Mkdir(path) => {
            fs::create_dir(at(*path))?;
            touched.extend([at(*path), parent(*path)?]);
        }
        Op::Remove(path) => {
            if at(*path).symlink_metadata()?.is_dir() {
                fs::remove_dir_all(at(*path))?;
            } else {
                fs::remove_file(at(*path))?;
            }
            touched.push(parent(*path)?);
        }
        Op::Rename(from, to) => {
            fs::rename(at(*from), at(*to))?;
            if from != to {
                touched.extend([parent(*from)?, parent(*to)?]);
            }
        }
        Op::Link(from, to) => {
            fs::hard_link(at(*from), at(*to))?;
            touched.push(parent(*to)?);
        }
        Op::Symlink(path, byte) => {
            symlink(format!("../{byte}"), at(*path))?;
            touched.extend([at(*path), parent(*path)?]);
        }
        Op::Fifo(path) => {
            mknodat(CWD, at(*path), FileType::Fifo, Mode::from_raw_mode(0o640), 0)?;
            touched.extend([at(*path), parent(*path)?]);
        }
        Op::Device(path, minor) => {
            let number = makedev(1, (*minor).into());
            let kind = FileType::CharacterDevice;
            mknodat(CWD, at(*path), kind, Mode::from_raw_mode(0o600), number)?;
            touched.extend([at(*path), parent(*path)?]);
        }
        Op::Chmod(path, mode) => {
            if at(*path).symlink_metadata()?.is_symlink() {
                return Err(io::Error::other("a symbolic link"));
            }
            fs::set_permissions(at(*path), fs::Permissions::from_mode(*mode))?;
        }
        Op::Chown(path, uid, gid) => lchown(at(*path), Some(base + uid), Some(base + gid))?,
        Op::Attribute(path, name, value) => {
            let name = ATTRIBUTES[*name as usize % ATTRIBUTES.len()];
            if name.starts_with("user") && !at(*path).symlink_metadata()?.is_dir() {
                regular(&at(*path))?;
            }
            lsetxattr(at(*path), name, &[*value], XattrFlags::empty())?;
        }
    }
    for path in touched.iter().filter(|path| path.symlink_metadata().is_ok()) {
        set_time(path, now);
    }
    Ok(())
}

/// Inodes with several names.
fn linked_inodes(root: &Path) -> HashSet<u64> {
    let mut found = HashSet::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let about = path.symlink_metadata().unwrap();
        if about.is_dir() {
            found.extend(linked_inodes(&path));
        } else if about.nlink() > 1 {
            found.insert(about.ino());
        }
    }
    found
}

/// A mount without an index copies a file up for the one name that is used: its other names
/// stay with the old file. The same is done here to the plain directory.
fn copy_up(op: &Op, root: &Path, committed: &HashSet<u64>) {
    let (Op::Write(path, ..)
    | Op::Append(path, _)
    | Op::Truncate(path, _)
    | Op::Rename(path, _)
    | Op::Link(path, _)
    | Op::Chmod(path, _)
    | Op::Chown(path, ..)
    | Op::Attribute(path, ..)) = op
    else {
        return;
    };
    let path = root.join(PATHS[*path]);
    let Ok(about) = path.symlink_metadata() else {
        return;
    };
    if about.is_dir() || !committed.contains(&about.ino()) {
        return;
    }
    let copy = root.with_file_name("copy");
    let parent = path.parent().unwrap();
    let time = parent.symlink_metadata().unwrap().modified().unwrap();
    let status = Command::new("cp").arg("-a").arg(&path).arg(&copy).status().unwrap();
    assert!(status.success());
    fs::rename(&copy, &path).unwrap();
    File::open(parent).unwrap().set_modified(time).unwrap();
}

fn set_time(path: &Path, now: i64) {
    let time = Timespec { tv_sec: now, tv_nsec: now % 7 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// An image with something of everything.
fn image(place: &Place) -> Tree {
    let mut tree = Tree::new(Metadata {
        mtime: Timestamp { seconds: 1_600_000_000, nanos: 5 },
        ..Metadata::with_mode(0o755)
    });
    for (path, mode, size) in [
        ("lib/big", 0o644, 9000),
        ("lib/sub/small", 0o755, 20),
        ("lib/sub/setuid", 0o4755, 3000),
        ("a/a/a/a", 0o600, 700),
        ("a/b/a", 0o644, 700),
        ("b/b", 0o444, 0),
    ] {
        let mut leaf = place.file(mode, &vec![b'x'; size]);
        leaf.metadata.mtime = Timestamp { seconds: -77, nanos: 999_999_999 };
        leaf.metadata.gid = 7;
        let attribute = (b"user.base".as_slice().into(), b"1".as_slice().into());
        leaf.metadata.xattrs = [attribute].into();
        tree.insert_leaf(path.as_bytes(), leaf).unwrap();
    }
    let linked = tree.insert_leaf(b"links/one", place.file(0o644, &[7; 2000])).unwrap();
    tree.insert_link(b"links/two", linked).unwrap();
    let target = b"lib/big".as_slice().into();
    let symlink = Leaf { metadata: Metadata::with_mode(0o777), kind: LeafKind::Symlink(target) };
    tree.insert_leaf(b"c", symlink).unwrap();
    tree
}

/// Writes a tree out as plain files.
fn write_out(place: &Place, tree: &Tree, root: &Path) {
    use homeport_content::EntryRef;
    fs::create_dir(root).unwrap();
    let mut written = std::collections::HashMap::new();
    let mut finish = vec![(root.to_owned(), tree.root.metadata.clone())];
    for (path, entry) in tree.walk() {
        let at = root.join(std::str::from_utf8(&path).unwrap());
        match entry {
            EntryRef::Directory(_) => fs::create_dir(&at).unwrap(),
            EntryRef::Leaf(id, leaf) => {
                if let Some(first) = written.get(&id) {
                    fs::hard_link(first, &at).unwrap();
                    continue;
                }
                written.insert(id, at.clone());
                match &leaf.kind {
                    LeafKind::File(content) => {
                        fs::write(&at, place.store.read_content(content).unwrap()).unwrap();
                    }
                    LeafKind::Symlink(target) => {
                        symlink(std::str::from_utf8(target).unwrap(), &at).unwrap();
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        finish.push((at, entry.metadata().clone()));
    }
    for (path, metadata) in finish.iter().rev() {
        lchown(path, Some(metadata.uid), Some(metadata.gid)).unwrap();
        if !path.is_symlink() {
            fs::set_permissions(path, fs::Permissions::from_mode(metadata.mode)).unwrap();
        }
        for (name, value) in &metadata.xattrs {
            lsetxattr(path, &**name, value, XattrFlags::empty()).unwrap();
        }
        let time = Timespec { tv_sec: metadata.mtime.seconds, tv_nsec: metadata.mtime.nanos.into() };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

fn round_trip(choice: BackendChoice, mapped: bool, rounds: &[Vec<Op>]) {
    let place = Place::quick(choice, mapped);
    let base = if mapped { HOST_BASE } else { 0 };
    let tree = image(&place);
    let plain = place.dir.path().join("plain");
    write_out(&place, &tree, &plain);
    assert_same(&observe(&plain), &tree, "the plain directory at the start");

    let mut snapshot = place.put(&tree);
    let mut now = 1_700_000_000;
    for ops in rounds {
        let (layer, mount) = place.writable(&[snapshot]);
        let committed = linked_inodes(&plain);
        for op in ops {
            now += 1;
            let through = acting_as_container_root(mapped, || apply(op, mount.target(), base, now));
            if through.is_ok() {
                copy_up(op, &plain, &committed);
            }
            let directly = apply(op, &plain, 0, now);
            let same = through.is_ok() == directly.is_ok();
            assert!(same, "{op:?}: {through:?} through the mount, {directly:?} directly");
        }
        mount.unmount().unwrap();
        let before = snapshot;
        snapshot = place.commit(&layer, &[before], &[]).unwrap();
        let expected = observe(&plain);
        assert_same(&place.store.tree(&snapshot).unwrap(), &expected, "the committed tree");

        let mount = place.readable(&[snapshot]);
        let shown = observe(mount.target());
        if place.fs.backend() == Backend::Erofs {
            assert_same(&shown, &expected, "the mounted snapshot");
        } else {
            let (shown, expected) = (unlinked(&shown), unlinked(&expected));
            assert_same(&shown, &expected, "the mounted snapshot");
        }
        mount.unmount().unwrap();
    }
}

fn check(choice: BackendChoice, mapped: bool) {
    let mut config =
        ProptestConfig { failure_persistence: None, max_shrink_iters: 300, ..ProptestConfig::default() };
    // The same every time, unless a longer search is asked for.
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 24;
        config.rng_seed = RngSeed::Fixed(0x0048_6f6d_6570_6f72);
    }
    let rounds = prop::collection::vec(prop::collection::vec(op(), 1..25), 2);
    proptest!(config, |(rounds in rounds)| {
        isolated(|| round_trip(choice, mapped, &rounds));
    });
}

#[test]
fn commits_round_trip_with_erofs() {
    check(BackendChoice::Erofs, false);
}

#[test]
fn commits_round_trip_with_erofs_and_mapped_ids() {
    check(BackendChoice::Erofs, true);
}

#[test]
fn commits_round_trip_with_links() {
    check(BackendChoice::Linked, false);
}

#[test]
fn commits_round_trip_with_links_and_mapped_ids() {
    check(BackendChoice::Linked, true);
}
