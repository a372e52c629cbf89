//! What `docs/volumes.md` says under "What it is on disk" happens: a test for each line of its table, which names the
//! test.

mod attributes;
mod content;
mod whole;

use homeport_content::Stack;
use homeport_fs::BackendChoice;
use serde_json::{Value, json};

use crate::limits::Disk;
use crate::place::{Place, Running};
use crate::snapshots::isolated;

const PAGE: &str = include_str!("../../../../docs/volumes.md");
const TESTS: [&str; 3] = [
    include_str!("differences/attributes.rs"),
    include_str!("differences/content.rs"),
    include_str!("differences/whole.rs"),
];

/// What the tests have the container do.
const PRELUDE: &str = r#"
import ctypes, sqlite3, socket, struct, subprocess
libc = ctypes.CDLL(None, use_errno=True)

def tried(act):
    try: act()
    except OSError as problem: return errno.errorcode[problem.errno]
    return 'ok'

def kernel(name, *given):
    if getattr(libc, name)(*given) < 0: raise OSError(ctypes.get_errno(), name)

def opened(path, flags=os.O_RDONLY):
    file = os.open(at + path, flags)
    os.close(file)

def birth(path):
    about = ctypes.create_string_buffer(256)
    kernel('statx', -100, (at + path).encode(), 0, 0xfff, about)
    if not struct.unpack_from('<I', about)[0] & 0x800: return None
    seconds, nanoseconds = struct.unpack_from('<qI', about, 0x50)
    return seconds * 10**9 + nanoseconds

GET_FLAGS, SET_FLAGS, NODUMP = 0x80086601, 0x40086602, 0x40

def flags(path, new=None):
    file = os.open(at + path, os.O_RDONLY)
    try:
        if new is not None: fcntl.ioctl(file, SET_FLAGS, struct.pack('<Q', new))
        return struct.unpack('<Q', fcntl.ioctl(file, GET_FLAGS, bytes(8)))[0] & NODUMP
    finally:
        os.close(file)

NOBODY = 0xffffffff
ACL = struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *entry) for entry in
    [(1, 6, NOBODY), (2, 4, 1000), (4, 4, NOBODY), (0x10, 4, NOBODY), (0x20, 4, NOBODY)])
"#;

/// EROFS images as the layers below, without and with mapped ids.
fn on_images(test: impl Fn(&Place) + Sync) {
    on(BackendChoice::Erofs, test);
}

fn on(choice: BackendChoice, test: impl Fn(&Place) + Sync) {
    for mapped in [false, true] {
        isolated(|| test(&Place::new(choice, mapped)));
    }
}

/// A file system that copies blocks and one that shares them, each on a disk of its own. It is so large that ext4 has
/// blocks of 4096 bytes.
fn on_disks(test: impl Fn(&str, &Disk, &Place) + Sync) {
    for kind in ["ext4", "xfs"] {
        isolated(|| {
            let disk = Disk::new(kind, 600);
            test(kind, &disk, &Place::within(&disk.path(), BackendChoice::Erofs, false));
        });
    }
}

/// A container that has the version mounted, and can do what the tests do.
fn begin(at: &Place, key: &str, version: &Stack) -> Running {
    prepared(at.run(key, version))
}

fn prepared(mut running: Running) -> Running {
    running.python(PRELUDE);
    running
}

/// Ends the container; the version with its changes.
fn ended(at: &Place, running: Running) -> Stack {
    let (volume, taken) = running.end();
    volume.forget().unwrap();
    at.with(&taken)
}

/// Asserts what some Python yields.
#[track_caller]
fn assert_yields(running: &mut Running, code: &str, expected: Value) {
    assert_eq!(running.python(code), expected, "{code}");
}

/// Asserts how each call ends: well, or with the name of an error.
#[track_caller]
fn assert_each(running: &mut Running, cases: &[(&str, &str)]) {
    for (act, expected) in cases {
        assert_yields(running, &format!("tried(lambda: {act})"), json!(expected));
    }
}

#[test]
fn the_page_names_a_test_for_each_difference() {
    let (_, section) = PAGE.split_once("\n## What it is on disk\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let tests: Vec<&str> = TESTS
        .iter()
        .flat_map(|text| text.split("#[test]\nfn ").skip(1))
        .map(|text| text.split_once('(').unwrap().0)
        .collect();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with('|')).skip(2).collect();
    assert!(rows.len() > 10, "the table is gone");
    for row in rows {
        let last = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let names: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test shows this: {row}");
        for name in names {
            assert!(tests.contains(&name), "there is no test `{name}`: {row}");
        }
    }
    for test in tests {
        assert!(section.contains(&format!("`{test}`")), "the page does not mention `{test}`");
    }
}
