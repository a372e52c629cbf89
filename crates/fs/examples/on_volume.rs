//! Runs a command on a mounted Volume, while what it changes is taken again and again.
//!
//! For suites that test file systems: the command finds the Volume at `$VOLUME`. At its end the
//! Volume is compared with what a fresh mount of the committed version shows.
//!
//! ```text
//! on_volume --dir DIR [--committed DIR] [--take MILLISECONDS] -- COMMAND ARGUMENTS…
//! ```
//!
//! `--committed` begins with a version that holds a copy of a directory. With `--take`, changes are
//! taken so often, and a version is shown anew whenever nothing stands against it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use homeport_content::{Stack, Tree};
use homeport_fs::{
    BackendChoice, Freezer, Inside, SnapshotFs, TakeKind, VolumeMount, VolumePlace, VolumeRequest,
};
use homeport_store::Store;

struct Arguments {
    dir: PathBuf,
    committed: Option<PathBuf>,
    take: Option<Duration>,
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!("usage: on_volume --dir DIR [--committed DIR] [--take MILLISECONDS] -- COMMAND ARGUMENTS…");
        return ExitCode::from(2);
    };
    // Nothing that is mounted here outlives this process.
    // SAFETY: there is only this thread yet.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.expect("root is needed");
    let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).unwrap();
    let place = Place::open(&arguments.dir);
    let stack = place.begin(arguments.committed.as_deref());
    let code = place.run(&stack, &arguments);
    ExitCode::from(code)
}

fn arguments() -> Option<Arguments> {
    let mut given = std::env::args_os().skip(1);
    let mut arguments = Arguments { dir: PathBuf::new(), committed: None, take: None, command: Vec::new() };
    while let Some(name) = given.next() {
        match name.to_str()? {
            "--dir" => arguments.dir = std::path::absolute(given.next()?).ok()?,
            "--committed" => arguments.committed = Some(given.next()?.into()),
            "--take" => {
                let every = given.next()?.to_str()?.parse().ok()?;
                arguments.take = Some(Duration::from_millis(every));
            }
            "--" => break,
            _ => return None,
        }
    }
    arguments.command = given.collect();
    (!arguments.command.is_empty() && arguments.dir.is_absolute()).then_some(arguments)
}

struct Place {
    dir: PathBuf,
    store: Arc<Store>,
    fs: Arc<SnapshotFs>,
}

impl Place {
    fn open(dir: &Path) -> Place {
        let store = Arc::new(Store::open(&dir.join("store")).unwrap());
        let fs = SnapshotFs::open(Arc::clone(&store), &dir.join("fs"), BackendChoice::Auto).unwrap();
        Place { dir: dir.to_owned(), store, fs: Arc::new(fs) }
    }

    /// The version to begin with: empty, or with a copy of a directory.
    fn begin(&self, committed: Option<&Path>) -> Stack {
        let empty = Stack::of(self.store.put_tree(&Tree::default()).unwrap());
        let Some(directory) = committed else {
            return empty;
        };
        let mut volume = self.mount("begin", &empty);
        let target = self.bind(&volume, "begin");
        let copied = Command::new("cp").arg("-a").arg(directory.join(".")).arg(&target).status().unwrap();
        assert!(copied.success(), "cp failed");
        unbind(&target);
        let taken = volume.take(None, TakeKind::Ended).unwrap();
        volume.forget().unwrap();
        taken.delta.map_or(empty.clone(), |delta| empty.with(delta))
    }

    fn mount(&self, key: &str, stack: &Stack) -> VolumeMount {
        let staging = self.dir.join(format!("staging-{key}"));
        std::fs::create_dir_all(&staging).unwrap();
        let place = VolumePlace {
            path: self.dir.join(format!("volume-{key}")),
            sub_path: PathBuf::new(),
            read_only: false,
        };
        self.fs
            .open_volume(VolumeRequest {
                key,
                stack,
                id_map: None,
                places: &[place],
                early_copies: &[],
                quota_bytes: 0,
                staging: &staging,
            })
            .unwrap()
    }

    /// Makes the Volume visible where its containers would see it.
    fn bind(&self, volume: &VolumeMount, key: &str) -> PathBuf {
        let target = self.dir.join(format!("volume-{key}"));
        std::fs::create_dir_all(&target).unwrap();
        for (source, target, _) in volume.binds() {
            rustix::mount::mount_bind(&source, &target).unwrap();
        }
        target
    }

    fn run(&self, stack: &Stack, arguments: &Arguments) -> u8 {
        let mut volume = self.mount("run", stack);
        let target = self.dir.join("volume-run");
        std::fs::create_dir_all(&target).unwrap();
        let binds = volume.binds();
        let mut command = Command::new(&arguments.command[0]);
        command.args(&arguments.command[1..]).env("VOLUME", &target);
        let mounts: Vec<(CString, CString)> =
            binds.iter().map(|(source, target, _)| (c_string(source), c_string(target))).collect();
        // SAFETY: the closure makes only system calls, with memory that was allocated before.
        unsafe {
            command.pre_exec(move || {
                checked(libc::setsid())?;
                checked(libc::unshare(libc::CLONE_NEWNS))?;
                for (source, target) in &mounts {
                    let nothing = std::ptr::null();
                    let (from, to) = (source.as_ptr(), target.as_ptr());
                    checked(libc::mount(from, to, nothing, libc::MS_BIND, nothing.cast()))?;
                    checked(libc::umount2(from, libc::MNT_DETACH))?;
                }
                Ok(())
            });
        }
        let mut child = command.spawn().unwrap();
        let session = child.id();
        let namespace = File::open(format!("/proc/{session}/ns/mnt")).unwrap();
        let processes = move || members(session);
        let inside = Inside {
            mount_namespace: namespace.as_fd(),
            processes: &processes,
            freezer: &Stopped { session },
        };
        let (mut takes, mut shows, mut deltas) = (0_u64, 0_u64, 0_u64);
        let mut at = Instant::now();
        let mut seen: Stack;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            std::thread::sleep(Duration::from_millis(5));
            let Some(every) = arguments.take else { continue };
            if at.elapsed() < every {
                continue;
            }
            at = Instant::now();
            // The process may end at any moment, and its namespace with it.
            let Ok(taken) = volume.take(Some(inside), TakeKind::Asked) else { continue };
            takes += 1;
            seen = taken.seen;
            if let Some(delta) = taken.delta {
                deltas += 1;
                seen = seen.with(delta);
            }
            if taken.clean && volume.show(inside, &self.folded(&mut seen), false).is_ok() {
                shows += 1;
            }
        };
        let taken = volume.take(None, TakeKind::Ended).unwrap();
        let end = taken.delta.map_or(taken.seen.clone(), |delta| taken.seen.with(delta));
        println!(
            "on_volume: {takes} takes, {deltas} with changes, {shows} versions shown, {} layers",
            end.deltas.len()
        );
        volume.forget().unwrap();
        self.assert_sound(&end);
        u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)
    }

    /// A stack of one snapshot where there were many deltas: what a server's compaction does.
    fn folded(&self, stack: &mut Stack) -> Stack {
        if stack.deltas.len() > 8 {
            let tree = self.store.layered(stack).unwrap().flatten();
            *stack = Stack::of(self.store.put_tree(&tree).unwrap());
        }
        stack.clone()
    }

    /// Every byte of the version is in the store, as it was named.
    fn assert_sound(&self, stack: &Stack) {
        let tree = self.store.layered(stack).unwrap().flatten();
        let id = self.store.put_tree(&tree).unwrap();
        self.store.verify_tree(&id).unwrap();
    }
}

fn unbind(target: &Path) {
    rustix::mount::unmount(target, rustix::mount::UnmountFlags::NOFOLLOW).unwrap();
}

fn c_string(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The processes of a session, and the state of each.
fn states(session: u32) -> Vec<(u32, char)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let fields: Vec<&str> = rest.split(' ').collect();
        if fields.get(3).and_then(|text| text.parse().ok()) == Some(session) {
            found.push((pid, fields[0].chars().next().unwrap_or('?')));
        }
    }
    found
}

fn members(session: u32) -> Vec<u32> {
    states(session).into_iter().map(|(pid, _)| pid).collect()
}

struct Stopped {
    session: u32,
}

impl Stopped {
    fn signal(&self, signal: libc::c_int) {
        for pid in members(self.session) {
            // SAFETY: plain system call. A process that has ended meanwhile gets nothing.
            unsafe { libc::kill(pid as libc::pid_t, signal) };
        }
    }
}

impl Freezer for Stopped {
    fn freeze(&self) -> io::Result<()> {
        // Until all stand still: what runs can make more of itself.
        let deadline = Instant::now() + Duration::from_secs(20);
        while states(self.session).iter().any(|(_, state)| !matches!(state, 'T' | 'Z' | 'X')) {
            if Instant::now() > deadline {
                self.signal(libc::SIGCONT);
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the command does not stop"));
            }
            self.signal(libc::SIGSTOP);
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    fn thaw(&self) -> io::Result<()> {
        self.signal(libc::SIGCONT);
        Ok(())
    }
}
