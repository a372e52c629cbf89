//! Content, space and names.

use serde_json::json;

use super::{assert_each, assert_yields, begin, ended, on_disks, on_images, prepared};
use crate::limits::Disk;
use crate::place::{Place, Running, place};
use crate::snapshots::isolated;

/// A container that has the version mounted, with these files copied before they are used.
fn begin_with(at: &Place, version: &homeport_content::Stack, early: &[&str]) -> Running {
    let volume = at.try_open("one", version, &[place("/v", "", false)], early, 0).unwrap();
    let binds = volume.binds();
    prepared(at.start_with(volume, &binds, "/v"))
}

#[test]
fn old_maps_show_old_content() {
    on_images(|at| {
        let version = at.version(&[("data.mdb", &format!("old{}", "a".repeat(8189)))]);
        for (early, mapped) in [(&[][..], "old"), (&["*.mdb"][..], "new")] {
            let mut running = begin_with(at, &version, early);
            running.python("reader = open(at + '/data.mdb', 'rb')");
            running.python("before = mmap.mmap(reader.fileno(), 0, prot=mmap.PROT_READ)");
            running.python("with open(at + '/data.mdb', 'r+') as file: file.write('new')");
            running.python("after = mmap.mmap(reader.fileno(), 0, prot=mmap.PROT_READ)");
            assert_yields(&mut running, "[before[:3].decode(), after[:3].decode()]", json!([mapped, mapped]));
            // All other ways to read show what was written.
            assert_yields(&mut running, "reader.read(3).decode()", json!("new"));
            assert_yields(&mut running, "open(at + '/data.mdb').read(3)", json!("new"));
            running.python("anew = open(at + '/data.mdb', 'rb')");
            running.python("anew = mmap.mmap(anew.fileno(), 0, prot=mmap.PROT_READ)");
            assert_yields(&mut running, "anew[:3].decode()", json!("new"));
            if early.is_empty() {
                running.python("os.truncate(at + '/data.mdb', 0)");
                assert_yields(&mut running, "before[:3].decode()", json!("old"));
            }
            ended(at, running);
        }
    });
}

#[test]
fn sqlite_readers_with_old_maps_see_old_rows() {
    on_images(|at| {
        let mut running = begin(at, "make", &at.version(&[]));
        running.python("db = sqlite3.connect(at + '/rows.db')");
        running.python("db.execute('create table rows (x)'); db.execute('insert into rows values (1)'); db.commit(); db.close()");
        let version = ended(at, running);
        for (early, mapped, seen) in [(&[][..], 1 << 20, 1), (&["*.db"][..], 1 << 20, 2), (&[][..], 0, 2)] {
            let mut running = begin_with(at, &version, early);
            running.python("reader = sqlite3.connect(f'file:{at}/rows.db?mode=ro', uri=True)");
            running.python(&format!("reader.execute('pragma mmap_size = {mapped}')"));
            let count = "reader.execute('select count(*) from rows').fetchone()[0]";
            assert_yields(&mut running, count, json!(1));
            running.python(
                "subprocess.run(['python3', '-c', 'import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); \
                 db.execute(\"insert into rows values (2)\"); db.commit()', at + '/rows.db'], check=True)",
            );
            assert_yields(&mut running, count, json!(seen));
            ended(at, running);
        }
    });
}

/// A path of so many bytes.
fn long(start: &str, bytes: usize) -> String {
    let mut path = start.to_owned();
    while bytes - path.len() > 250 {
        path.push_str(&"d".repeat(200 - path.len() % 201));
        path.push('/');
    }
    path.push_str(&"f".repeat(bytes - path.len()));
    path
}

/// Goes to the directory of a path longer than programs can name; its last name.
const GO: &str = "
def go(path):
    os.chdir(at)
    *above, name = path.split('/')
    for directory in above: os.chdir(directory)
    return name
top = os.open(at, os.O_RDONLY)
";

#[test]
fn long_paths_cannot_be_moved() {
    homeport_fs::raise_redirect_limit().unwrap();
    on_disks(|kind, _, at| {
        // On ext4 all attributes of a file share a block of 4096 bytes.
        for (bytes, expected) in
            [(300, "ok"), (3900, "ok"), (4050, if kind == "ext4" { "EXDEV" } else { "ok" }), (4200, "EXDEV")]
        {
            let [file, linked, directory] = ["r", "l", "d"].map(|start| long(start, bytes));
            let inside = format!("{directory}/in");
            let version = at.version(&[(&file, "f"), (&linked, "l"), (&inside, "in")]);
            let mut running = begin(at, "one", &version);
            running.python(GO);
            let cases = [
                format!("os.rename(go({file:?}), 'file', dst_dir_fd=top)"),
                format!("os.link(go({linked:?}), 'link', dst_dir_fd=top)"),
                format!("os.rename(go({directory:?}), 'directory', dst_dir_fd=top)"),
            ];
            let cases: Vec<(&str, &str)> = cases.iter().map(|act| (&**act, expected)).collect();
            assert_each(&mut running, &cases);
            if expected == "EXDEV" {
                let code = format!("subprocess.run(['mv', go({file:?}), at + '/file'], check=True)");
                running.python(&code);
            }
            assert_yields(&mut running, "open(at + '/file').read()", json!("f"));
            running.python("os.close(top); os.chdir('/')");
            let next = ended(at, running);
            assert_eq!(at.text(&next, "file"), "f");
            assert!(!at.paths(&next).contains(&file));
        }
    });
}

const FILL: &str = "
def fill(name):
    for size in (1 << 20, 4096, 1):
        try:
            with open(at + f'/{name}-{size}', 'wb', buffering=0) as file:
                while True: file.write(b'x' * size)
        except OSError as problem:
            if problem.errno != errno.ENOSPC: raise

def in_the_end(act):
    for _ in range(400):
        if tried(act) != 'ENOSPC': return
        time.sleep(0.05)
    act()
";

#[test]
fn full_disks_leave_room_to_remove() {
    isolated(|| {
        let disk = Disk::new("ext4", 100);
        {
            let at = Place::within(&disk.path(), homeport_fs::BackendChoice::Erofs, false);
            let files: Vec<String> = (0..10).map(|number| format!("{number}/file")).collect();
            let files: Vec<(&str, &str)> = files.iter().map(|path| (&**path, "f")).collect();
            let mut running = begin(&at, "one", &at.version(&files));
            running.python(FILL);
            running.python("fill('first')");
            running.python("in_the_end(lambda: os.remove(at + '/0/file'))");
            let cases = [("os.rmdir(at + '/0')", "ok"), ("os.chmod(at + '/1/file', 0o600)", "ok")];
            assert_each(&mut running, &cases);
            // Without what was kept, they need space that is not there.
            running.python("fill('second'); fill('third')");
            let removed = "os.remove(at + '/2/file')";
            let cases = [(removed, "ENOSPC"), ("os.chmod(at + '/3/file', 0o600)", "ENOSPC")];
            assert_each(&mut running, &cases);
            // What the container wrote itself can always be removed.
            assert_each(
                &mut running,
                &[(&*format!("os.remove(at + '/second-{}')", 1 << 20), "ok"), (removed, "ok")],
            );
            running.python("for name in os.listdir(at):\n if '-' in name: os.remove(at + '/' + name)");
            let next = ended(&at, running);
            assert_eq!(at.paths(&next).iter().filter(|path| path.ends_with("file")).count(), 8);
        }
    });
}

/// Bytes that are free on the disk.
fn free(disk: &Disk, running: &mut Running) -> u64 {
    running.python("os.sync()");
    let about = rustix::fs::statvfs(disk.path()).unwrap();
    about.f_bfree * about.f_frsize
}

#[test]
fn first_open_for_writing_copies() {
    const SIZE: u64 = 32 << 20;
    on_disks(|kind, disk, at| {
        let version = at.version(&[("large", &"x".repeat(SIZE as usize))]);
        let mut running = begin(at, "one", &version);
        let before = free(disk, &mut running);
        running.python("opened('/large', os.O_RDWR)");
        let taken = before.saturating_sub(free(disk, &mut running));
        assert_eq!(taken >= SIZE, kind == "ext4", "{kind}: {taken} bytes");
        assert!(kind == "ext4" || taken < SIZE / 8, "{kind}: {taken} bytes");
        ended(at, running);
    });
}

/// Blocks of a file, in bytes, after an act.
#[track_caller]
fn space(running: &mut Running, path: &str, act: &str) -> u64 {
    running.python(act);
    running.python(&format!("os.stat(at + {path:?}).st_blocks * 512")).as_u64().unwrap()
}

/// A version with holes of 60 KiB and of 4 MiB between pieces of 4 KiB.
fn with_holes(at: &Place) -> homeport_content::Stack {
    let mut running = begin(at, "make", &at.version(&[]));
    running.python(
        "def holes(path, hole, count):
    with open(at + path, 'wb') as file:
        for number in range(count):
            file.seek(hole, os.SEEK_CUR)
            file.write(b'x' * 4096)
holes('/small', 60 << 10, 64)
holes('/large', 4 << 20, 4)
os.sync()
",
    );
    ended(at, running)
}

#[test]
fn small_holes_are_filled() {
    on_disks(|kind, _, at| {
        let mut running = begin(at, "one", &with_holes(at));
        for path in ["/small", "/large"] {
            assert!(space(&mut running, path, &format!("opened({path:?})")) < 512 << 10, "{path}");
            assert!(
                space(&mut running, path, &format!("os.chmod(at + {path:?}, 0o600)")) < 512 << 10,
                "{path}"
            );
        }
        let small = space(&mut running, "/small", "opened('/small', os.O_RDWR)");
        assert_eq!(small >= 64 * (60 << 10), kind == "ext4", "{kind}: {small}");
        let large = space(&mut running, "/large", "opened('/large', os.O_RDWR)");
        assert!(large < 8 << 20, "{kind}: {large}");
        ended(at, running);
    });
}

#[test]
fn sparse_files_look_full_until_opened() {
    on_images(|at| {
        let mut running = begin(at, "one", &with_holes(at));
        let looks = space(&mut running, "/large", "None");
        assert_eq!(looks, 4 * ((4 << 20) + 4096));
        assert!(space(&mut running, "/large", "opened('/large')") < 512 << 10);
        ended(at, running);
    });
}

#[test]
fn removed_files_refuse_changes() {
    on_images(|at| {
        let version = at.version(&[("removed", "r"), ("replaced", "r"), ("open", "o")]);
        let mut running = begin(at, "one", &version);
        running.python("gone = os.open(at + '/removed', os.O_RDONLY); os.remove(at + '/removed')");
        running.python("other = os.open(at + '/replaced', os.O_RDONLY); open(at + '/new', 'w').close(); os.rename(at + '/new', at + '/replaced')");
        running.python("writer = os.open(at + '/open', os.O_RDWR); os.remove(at + '/open')");
        for (file, expected) in [("gone", "EEXIST"), ("other", "EEXIST"), ("writer", "ok")] {
            let cases = [
                format!("os.fchmod({file}, 0o600)"),
                format!("os.utime({file}, (1, 1))"),
                format!("os.setxattr({file}, 'user.name', b'value')"),
                format!("os.close(os.open(f'/proc/self/fd/{{{file}}}', os.O_RDWR))"),
            ];
            let cases: Vec<(&str, &str)> = cases.iter().map(|act| (&**act, expected)).collect();
            assert_each(&mut running, &cases);
            // The content stays.
            assert_yields(&mut running, &format!("len(os.pread({file}, 10, 0))"), json!(1));
        }
        running.python("os.close(gone); os.close(other); os.close(writer)");
        ended(at, running);
    });
}
