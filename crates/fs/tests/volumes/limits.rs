//! Full disks, limits, and files that are copied before they are used.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use homeport_fs::{BackendChoice, TakeKind, VolumeError};

use crate::place::{Place, everywhere, place};
use crate::snapshots::isolated;

/// A small file system of its own, in the mount namespace of the test.
pub struct Disk {
    dir: tempfile::TempDir,
    attached: String,
}

impl Disk {
    pub fn new(kind: &str, megabytes: u64) -> Disk {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        let run = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().unwrap();
            assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let image = image.to_str().unwrap();
        let attached = run("losetup", &["--find", "--show", image]);
        let disk = Disk { attached, dir };
        run(&format!("mkfs.{kind}"), &["-q", &disk.attached]);
        std::fs::create_dir(disk.path()).unwrap();
        run("mount", &[&disk.attached, disk.path().to_str().unwrap()]);
        disk
    }

    pub fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("disk")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--lazy"]).arg(self.path()).status();
        let _ = Command::new("losetup").args(["--detach", &self.attached]).status();
    }
}

/// Fills what is left, down to the last block.
const FILL: &str = "
def fill():
    for size in (1 << 20, 4096, 1):
        try:
            with open(at + f'/filler-{size}', 'wb', buffering=0) as file:
                while True: file.write(b'x' * size)
        except OSError as problem:
            if problem.errno != errno.ENOSPC: raise
fill()
";

#[test]
fn files_can_be_removed_from_a_full_disk_and_that_can_be_committed() {
    for kind in ["ext4", "xfs"] {
        isolated(|| {
            let disk = Disk::new(kind, 340);
            {
                let at = Place::within(&disk.path(), BackendChoice::Auto, false);
                let files: Vec<(String, String)> = (0..200)
                    .map(|number| (format!("dir-{}/{number}", number % 20), "x".repeat(3000)))
                    .collect();
                let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (&**path, &**text)).collect();
                let version = at.version(&files);
                let mut running = at.run("one", &version);
                running.python(FILL);
                let deadline = Instant::now() + Duration::from_secs(20);
                // The space is given up a moment after the disk became full.
                while let Err(problem) = running.container.try_run("os.remove(at + '/dir-1/1')") {
                    assert!(problem.contains("No space") && Instant::now() < deadline, "{problem}");
                    std::thread::sleep(Duration::from_millis(50));
                }
                for number in (0..200).filter(|number| *number != 1) {
                    running.python(&format!("os.remove(at + '/dir-{}/{number}')", number % 20));
                }
                // What fills the disk is in the way of being committed, but not of being removed.
                running.python(
                    "for name in os.listdir(at): name.startswith('filler') and os.remove(at + '/' + name)",
                );
                let taken = running.take(TakeKind::Asked);
                assert_eq!(at.paths(&at.with(&taken)).len(), 20);
                running.end().0.forget().unwrap();
            }
        });
    }
}

#[test]
fn a_take_without_space_keeps_the_changes_for_when_there_is_some() {
    isolated(|| {
        let disk = Disk::new("ext4", 120);
        {
            let at = Place::within(&disk.path(), BackendChoice::Linked, false);
            let version = at.version(&[("file", "f")]);
            let mut running = at.run("one", &version);
            running.python("open(at + '/large', 'wb').write(os.urandom(60 << 20))");
            let volume = &mut running.volume;
            let refused = running.container.inside(|inside| volume.take(Some(inside), TakeKind::Asked));
            let refused = refused.unwrap_err();
            assert_eq!(refused.io().and_then(std::io::Error::raw_os_error), Some(libc::ENOSPC), "{refused}");
            assert_eq!(running.python("os.path.getsize(at + '/large') >> 20"), 60);
            // With the end of the container it needs no second copy.
            let (volume, taken) = running.end();
            assert_eq!(at.paths(&at.with(&taken)), ["file", "large"]);
            volume.forget().unwrap();
        }
    });
}

#[test]
fn a_volume_over_its_limit_is_not_committed_until_it_is_smaller() {
    everywhere(|at| {
        let version = at.version(&[("committed", &"c".repeat(6000))]);
        let volume = at.try_open("one", &version, &[place("/v", "", false)], &[], 10_000).unwrap();
        let binds = volume.binds();
        let mut running = at.start_with(volume, &binds, "/v");
        running.write("more", &"m".repeat(5000));
        let volume = &mut running.volume;
        let refused = running.container.inside(|inside| volume.take(Some(inside), TakeKind::Asked));
        assert!(matches!(refused, Err(VolumeError::Quota { bytes: 11_000, quota: 10_000 })), "{refused:?}");
        assert_eq!(running.read("more"), "m".repeat(5000));
        running.python("os.truncate(at + '/more', 4000)");
        let taken = running.take(TakeKind::Asked);
        assert_eq!(at.text(&at.with(&taken), "more"), "m".repeat(4000));
        running.python("os.remove(at + '/committed')");
        running.write("other", &"o".repeat(6000));
        running.take(TakeKind::Asked);
        running.end().0.forget().unwrap();
    });
}

/// What a reader sees that mapped a file before somebody wrote to it.
fn mapped_before_a_write(at: &Place, early: &[&str]) -> (String, bool) {
    let version = at.version(&[("db/data.mdb", &"a".repeat(8192)), ("db/lock", "x")]);
    let volume = at.try_open("one", &version, &[place("/v", "", false)], early, 0).unwrap();
    let binds = volume.binds();
    let mut running = at.start_with(volume, &binds, "/v");
    running.python("reader = open(at + '/db/data.mdb', 'rb'); mapped = mmap.mmap(reader.fileno(), 0, prot=mmap.PROT_READ)");
    running.python("with open(at + '/db/data.mdb', 'r+') as f: f.write('new')");
    let seen = running.python("mapped[:4].decode()").as_str().unwrap().to_owned();
    running.python("mapped.close(); reader.close()");
    let taken = running.take(TakeKind::Asked);
    assert_eq!(at.text(&at.with(&taken), "db/data.mdb"), format!("new{}", "a".repeat(8189)));
    // The other file was not copied.
    assert_eq!(at.delta(&taken).leaves.len(), 1);
    let (volume, nothing) = running.end();
    assert_eq!(nothing.delta, None);
    volume.forget().unwrap();
    (seen, taken.clean)
}

#[test]
fn a_database_that_is_copied_early_shows_writes_to_those_who_mapped_it_before() {
    everywhere(|at| {
        assert_eq!(mapped_before_a_write(at, &["*.mdb", "/other/*"]), ("newa".into(), false));
        // This is what is mended.
        assert_eq!(mapped_before_a_write(at, &[]).0, "aaaa");
    });
}

#[test]
fn files_that_were_copied_early_and_not_changed_are_no_change() {
    everywhere(|at| {
        let version = at.version(&[("a.db", &"a".repeat(8192)), ("b.db", "small"), ("c", "c")]);
        let volume = at.try_open("one", &version, &[place("/v", "", false)], &["*.db"], 0).unwrap();
        let binds = volume.binds();
        let mut running = at.start_with(volume, &binds, "/v");
        let taken = running.take(TakeKind::Asked);
        assert_eq!((taken.delta, taken.clean), (None, true));
        let other = at.version(&[("a.db", "other"), ("c", "c")]);
        running.show(&other).unwrap();
        assert_eq!(running.read("a.db"), "other");
        let (volume, nothing) = running.end();
        assert_eq!(nothing.delta, None);
        volume.forget().unwrap();
    });
}

#[test]
fn free_space_is_that_of_the_disk() {
    isolated(|| {
        let disk = Disk::new("ext4", 150);
        {
            let at = Place::within(&disk.path(), BackendChoice::Auto, false);
            let version = at.version(&[("file", "f")]);
            let mut running = at.run("one", &version);
            let shown = running
                .python("(lambda s: [s.f_blocks * s.f_frsize, s.f_bavail * s.f_frsize])(os.statvfs(at))");
            let host = rustix::fs::statvfs(Path::new(&disk.path())).unwrap();
            assert_eq!(
                shown,
                serde_json::json!([host.f_blocks * host.f_frsize, host.f_bavail * host.f_frsize])
            );
            running.end().0.forget().unwrap();
        }
    });
}
