//! Random operations through a mount, over several deltas, scanned while it is mounted and when it is not.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, lchown, symlink};
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rustix::fs::{CWD, FileType, Mode, RenameFlags, XattrFlags, lsetxattr, mknodat, renameat_with};

use super::*;

#[derive(Debug, Clone)]
enum Op {
    Write(usize, u8, usize),
    Append(usize, u8),
    /// Opened for writing in vain.
    Touch(usize),
    Truncate(usize, u64),
    Patch(usize, u64, u8),
    Mkdir(usize),
    Remove(usize),
    Rename(usize, usize),
    Exchange(usize, usize),
    Link(usize, usize),
    Symlink(usize, u8),
    Fifo(usize),
    Chmod(usize, u32),
    Chown(usize, u32),
    Attribute(usize, u8, u8),
    /// Scanned in between, perhaps after times have settled.
    Scan(bool),
}

/// Few places, so that operations meet.
const PATHS: [&str; 20] = [
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
    "links",
    "links/one",
    "links/two",
    "links/sub/three",
    "lib",
    "lib/big",
    "lib/sub",
    "lib/sub/small",
];

const ATTRIBUTES: [&str; 3] = ["user.note", "trusted.overlay.opaque", "trusted.overlay.metacopy"];

fn op() -> impl Strategy<Value = Op> {
    let path = || 0..PATHS.len();
    prop_oneof![
        4 => (path(), any::<u8>(), prop::sample::select(vec![0_usize, 9, 512, 513, 5000, 200_000]))
            .prop_map(|(path, byte, size)| Op::Write(path, byte, size)),
        2 => (path(), any::<u8>()).prop_map(|(path, byte)| Op::Append(path, byte)),
        3 => path().prop_map(Op::Touch),
        1 => (path(), prop::sample::select(vec![0_u64, 100, 600, 70_000, 300_000]))
            .prop_map(|(path, size)| Op::Truncate(path, size)),
        1 => (path(), 0..200_000_u64, any::<u8>()).prop_map(|(path, at, byte)| Op::Patch(path, at, byte)),
        3 => path().prop_map(Op::Mkdir),
        3 => path().prop_map(Op::Remove),
        5 => (path(), path()).prop_map(|(from, to)| Op::Rename(from, to)),
        2 => (path(), path()).prop_map(|(from, to)| Op::Exchange(from, to)),
        3 => (path(), path()).prop_map(|(from, to)| Op::Link(from, to)),
        1 => (path(), any::<u8>()).prop_map(|(path, byte)| Op::Symlink(path, byte)),
        1 => path().prop_map(Op::Fifo),
        2 => (path(), 0..0o7777_u32).prop_map(|(path, mode)| Op::Chmod(path, mode)),
        1 => (path(), 0..3_u32).prop_map(|(path, uid)| Op::Chown(path, uid)),
        2 => (path(), any::<u8>(), any::<u8>())
            .prop_map(|(path, name, value)| Op::Attribute(path, name, value)),
        1 => any::<bool>().prop_map(Op::Scan),
    ]
}

/// Does one operation. That some cannot be done is as it should be.
fn apply(op: &Op, root: &Path, base: u32) -> io::Result<()> {
    let at = |index: usize| root.join(PATHS[index]);
    let writable = |index: usize| {
        let path = at(index);
        match fs::symlink_metadata(&path)?.is_file() {
            true => File::options().read(true).write(true).open(path),
            false => Err(io::Error::other("not a file")),
        }
    };
    match op {
        Op::Write(path, byte, size) => {
            let path = at(*path);
            if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
                return Err(io::Error::other("not a file"));
            }
            fs::write(path, vec![*byte; *size])
        }
        Op::Append(path, byte) => {
            let file = writable(*path)?;
            file.write_all_at(&[*byte; 30], file.metadata()?.len())
        }
        Op::Touch(path) => writable(*path).map(drop),
        Op::Truncate(path, size) => writable(*path)?.set_len(*size),
        Op::Patch(path, offset, byte) => writable(*path)?.write_all_at(&[*byte; 7], *offset),
        Op::Mkdir(path) => fs::create_dir(at(*path)),
        Op::Remove(path) => match at(*path).symlink_metadata()?.is_dir() {
            true => fs::remove_dir_all(at(*path)),
            false => fs::remove_file(at(*path)),
        },
        Op::Rename(from, to) => fs::rename(at(*from), at(*to)),
        Op::Exchange(from, to) => Ok(renameat_with(CWD, at(*from), CWD, at(*to), RenameFlags::EXCHANGE)?),
        Op::Link(from, to) => fs::hard_link(at(*from), at(*to)),
        Op::Symlink(path, byte) => symlink(format!("../{byte}"), at(*path)),
        Op::Fifo(path) => Ok(mknodat(CWD, at(*path), FileType::Fifo, Mode::from_raw_mode(0o640), 0)?),
        Op::Chmod(path, mode) => {
            if at(*path).symlink_metadata()?.is_symlink() {
                return Err(io::Error::other("a symbolic link"));
            }
            fs::set_permissions(at(*path), fs::Permissions::from_mode(*mode))
        }
        Op::Chown(path, uid) => lchown(at(*path), Some(base + uid), None),
        Op::Attribute(path, name, value) => {
            let name = ATTRIBUTES[*name as usize % ATTRIBUTES.len()];
            let found = at(*path).symlink_metadata()?;
            if !found.is_dir() && !found.is_file() {
                return Err(io::Error::other("users have no attributes there"));
            }
            Ok(lsetxattr(at(*path), name, &[*value], XattrFlags::empty())?)
        }
        Op::Scan(_) => Ok(()),
    }
}

fn base(place: &Place) -> Stack {
    let mut tree = Tree::new(Metadata {
        mtime: Timestamp { seconds: 1_600_000_000, nanos: 5 },
        ..Metadata::with_mode(0o755)
    });
    for (path, mode, size) in [
        ("lib/big", 0o644, 200_000),
        ("lib/sub/small", 0o755, 20),
        ("a/a/a", 0o600, 700),
        ("a/b/a", 0o644, 70_000),
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
    for name in ["links/two", "links/sub/three", "a/c"] {
        tree.insert_link(name.as_bytes(), linked).unwrap();
    }
    place.base(&tree)
}

fn try_rounds(place: &Place, rounds: &[Vec<Op>]) {
    let first_id = if place.map.is_some() { HOST_BASE } else { 0 };
    let mut stack = base(place);
    for ops in rounds {
        let mounted = place.mount(&stack);
        for op in ops {
            // What cannot be done changes nothing.
            let _ = apply(op, &mounted.root(), first_id);
            if let Op::Scan(settled) = op {
                if *settled {
                    std::thread::sleep(std::time::Duration::from_millis(25));
                }
                mounted.check("a scan while it is mounted");
            }
        }
        mounted.check("a scan at the end, while it is mounted");
        mounted.check("the same once more");
        stack = mounted.finish();
    }
    let unchanged = place.mount(&stack);
    let delta = unchanged.check("no change at all");
    assert!(delta.is_empty() && delta.root.metadata == *unchanged.seen.get(b"").unwrap().metadata());
    unchanged.detach();
}

fn config() -> ProptestConfig {
    let mut config =
        ProptestConfig { failure_persistence: None, max_shrink_iters: 400, ..ProptestConfig::default() };
    // The same every time, unless a longer search is asked for.
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 20;
        config.rng_seed = RngSeed::Fixed(0x0048_6f6d_6570_6f72);
    }
    config
}

fn rounds() -> impl Strategy<Value = Vec<Vec<Op>>> {
    prop::collection::vec(prop::collection::vec(op(), 1..25), 3)
}

#[test]
fn scans_say_what_the_mount_shows() {
    proptest!(config(), |(rounds in rounds())| {
        isolated(|| try_rounds(&Place::new(false), &rounds));
    });
}

#[test]
fn scans_say_what_the_mount_shows_with_mapped_ids() {
    proptest!(config(), |(rounds in rounds())| {
        isolated(|| try_rounds(&Place::new(true), &rounds));
    });
}

#[test]
fn scans_say_what_the_mount_shows_where_blocks_are_shared() {
    isolated(|| {
        let disk = reflink::Disk::new();
        proptest!(config(), |(rounds in rounds())| {
            try_rounds(&disk.place(), &rounds);
        });
    });
}
