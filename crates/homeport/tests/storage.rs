//! The data directory on a file system of its own. Needs root, loop devices and `mkfs.xfs`, and leaves no mount.

#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::fs::ioctl_ficlone;
use rustix::process::{Pid, Signal, kill_process};

/// Sparse, so that the tests take what they write.
const INIT: [&str; 5] = ["storage", "init", "--size", "2GiB", "--sparse"];

/// A data directory that is taken off its mount at the end, however the test ends.
struct DataDir {
    dir: tempfile::TempDir,
}

impl DataDir {
    fn new() -> DataDir {
        DataDir { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_homeport"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HOMEPORT_") {
                command.env_remove(name);
            }
        }
        command.env("HTTPS_PROXY", "http://127.0.0.1:9").args(arguments).arg("--data-dir").arg(self.path());
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn is_mounted(&self) -> bool {
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
        table.contains(self.path().to_str().unwrap())
    }

    fn start(&self) -> Server {
        let mut process =
            self.command(&["up", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("ready "), "{line}");
        Server(process)
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if self.is_mounted() {
            let _ = self.run(&["storage", "detach"]);
        }
        if self.is_mounted() {
            let _ = rustix::mount::unmount(self.path(), rustix::mount::UnmountFlags::DETACH);
        }
    }
}

struct Server(Child);

impl Server {
    fn end(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Loop devices that a file is behind.
fn devices_of(file: &Path) -> usize {
    let name = file.to_str().unwrap();
    let entries = std::fs::read_dir("/sys/block").unwrap();
    let files = entries
        .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path().join("loop/backing_file")).ok());
    files.filter(|behind| behind.starts_with(name)).count()
}

#[test]
fn a_new_file_system_is_seen_by_all_shares_blocks_and_goes_without_a_trace() {
    let data = DataDir::new();
    assert!(data.refused(&["storage", "status"]).contains("storage init"));
    data.done(&INIT);
    assert!(data.is_mounted());
    let file = data.path().join("storage.xfs");
    assert_eq!(devices_of(&file), 1);

    let status: serde_json::Value =
        serde_json::from_str(&data.done(&["storage", "status", "--json"])).unwrap();
    assert_eq!((status["attached"].as_bool(), status["size_bytes"].as_u64()), (Some(true), Some(2 << 30)));
    std::fs::write(data.path().join("a"), vec![7; 1 << 20]).unwrap();
    let copy = std::fs::File::create(data.path().join("b")).unwrap();
    ioctl_ficlone(&copy, std::fs::File::open(data.path().join("a")).unwrap()).unwrap();
    drop(copy);
    assert!(data.refused(&INIT).contains("a file system of its own already"));

    // What uses it keeps it.
    let open = std::fs::File::open(data.path().join("a")).unwrap();
    assert!(data.refused(&["storage", "detach"]).contains("fuser"));
    drop(open);
    data.done(&["storage", "detach"]);
    assert!(!data.is_mounted() && !data.path().join("a").exists());
    assert_eq!(devices_of(&file), 0);
    assert!(data.done(&["storage", "status"]).contains("not attached"));

    data.done(&["storage", "attach"]);
    assert!(data.done(&["storage", "attach"]).contains("already"));
    assert_eq!(devices_of(&file), 1);
    assert_eq!(std::fs::read(data.path().join("b")).unwrap(), vec![7; 1 << 20]);
    data.done(&["storage", "detach"]);
}

#[test]
fn a_server_mounts_it_at_its_start_and_commands_see_what_it_sees() {
    let data = DataDir::new();
    data.done(&INIT);
    data.done(&["storage", "detach"]);
    let hidden = data.refused(&["token", "list"]);
    assert!(hidden.contains("not mounted") && hidden.contains("storage attach"), "{hidden}");
    let doctor = String::from_utf8(data.run(&["doctor"]).stdout).unwrap();
    assert!(doctor.contains("storage attach"), "{doctor}");

    let server = data.start();
    let made = data.done(&["token", "create", "--name", "kept"]);
    assert!(made.contains("MODAL_TOKEN_ID"), "{made}");
    assert!(data.refused(&["storage", "detach"]).contains("in use by another server"));
    server.end();

    // It stays for commands that need no server.
    assert!(data.is_mounted());
    assert!(data.done(&["token", "list"]).contains("kept"));
    data.done(&["storage", "detach"]);
    let server = data.start();
    assert!(data.done(&["token", "list"]).contains("kept"));
    server.end();
}

#[test]
fn content_is_moved_only_when_asked_for_and_with_all_that_belongs_to_it() {
    let data = DataDir::new();
    let root = data.path();
    std::fs::create_dir_all(root.join("store/objects")).unwrap();
    std::fs::write(root.join("store/objects/one"), "content").unwrap();
    std::fs::hard_link(root.join("store/objects/one"), root.join("store/two")).unwrap();
    symlink("objects/one", root.join("store/link")).unwrap();
    std::fs::set_permissions(root.join("store"), std::fs::Permissions::from_mode(0o750)).unwrap();
    rustix::fs::setxattr(
        root.join("store/objects"),
        "trusted.overlay.opaque",
        b"y",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();

    assert!(data.refused(&INIT).contains("--move"));
    assert!(!data.is_mounted() && !root.join("storage.xfs").exists() && !root.join("storage.json").exists());
    std::fs::create_dir_all(root.join("fs/volumes/ta-1-vo-1")).unwrap();
    let unsaved = data.refused(&[&INIT[..], &["--move"]].concat());
    assert!(unsaved.contains("start the server once"), "{unsaved}");
    std::fs::remove_dir_all(root.join("fs")).unwrap();
    assert!(!root.join("storage.xfs.new").exists());

    // What a cut off attempt left is no obstacle.
    std::fs::write(root.join("storage.xfs.new"), "half").unwrap();
    data.done(&[&INIT[..], &["--move"]].concat());
    assert!(data.is_mounted());
    assert_eq!(std::fs::read(root.join("store/link")).unwrap(), b"content");
    let [one, two] = ["store/objects/one", "store/two"].map(|name| root.join(name).metadata().unwrap());
    assert_eq!((one.ino(), one.nlink()), (two.ino(), 2));
    assert_eq!(root.join("store").metadata().unwrap().permissions().mode() & 0o777, 0o750);
    let mut value = [0; 8];
    let length =
        rustix::fs::getxattr(root.join("store/objects"), "trusted.overlay.opaque", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"y");

    data.done(&["storage", "detach"]);
    assert!(!root.join("store").exists(), "what was moved still takes space below");
}

#[test]
fn a_file_of_another_directory_or_none_is_not_mounted() {
    let data = DataDir::new();
    data.done(&INIT);
    data.done(&["storage", "detach"]);
    let other = DataDir::new();
    let elsewhere = other.dir.path().join("disk.xfs");
    other.done(&[&INIT[..], &["--path", elsewhere.to_str().unwrap()]].concat());
    other.done(&["storage", "detach"]);

    let kept = elsewhere.with_extension("kept");
    std::fs::rename(&elsewhere, &kept).unwrap();
    assert!(other.refused(&["storage", "attach"]).contains("is not there"));
    std::fs::rename(data.path().join("storage.xfs"), &elsewhere).unwrap();
    assert!(other.refused(&["storage", "attach"]).contains("of another"));
    assert!(!other.is_mounted());
    assert_eq!(devices_of(&elsewhere), 0);
    std::fs::rename(&kept, &elsewhere).unwrap();
    other.done(&["storage", "attach"]);
    other.done(&["storage", "detach"]);
}

#[test]
fn a_size_that_cannot_be_is_refused_before_anything_is_made() {
    let data = DataDir::new();
    assert!(data.refused(&["storage", "init", "--size", "100MB"]).contains("too small"));
    let huge = data.refused(&["storage", "init", "--size", "1000000GB"]);
    assert!(huge.contains("--size"), "{huge}");
    let left: Vec<_> = std::fs::read_dir(data.path())
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(left.iter().all(|name| name == "homeport.lock"), "{left:?}");
}
