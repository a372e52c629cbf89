//! A process with a mount namespace of its own, as a container has, that does what a test tells it.

use std::ffi::CString;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use homeport_fs::{Freezer, IdMap, Inside};

/// What the process runs: each line of input is a piece of Python, each line of output what became of it.
const LOOP: &str = "
import json, sys, os, mmap, stat, threading, time, errno, fcntl
scope = globals()
for line in sys.stdin:
    code = json.loads(line)
    try:
        try:
            piece = compile(code, 'test', 'eval')
        except SyntaxError:
            exec(compile(code, 'test', 'exec'), scope)
            answer = {'ok': None}
        else:
            answer = {'ok': eval(piece, scope)}
    except BaseException as problem:
        answer = {'error': f'{type(problem).__name__}: {problem}'}
    print(json.dumps(answer, default=repr), flush=True)
";

pub struct Container {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    namespace: OwnedFd,
    /// How often it was stopped.
    pub stops: AtomicUsize,
}

/// What to do between fork and exec, with all memory that it takes.
enum Step {
    Directory(CString),
    Symlink(CString, CString),
    Bind { source: CString, target: CString, recursive: bool },
    ReadOnly(CString),
}

/// What the process sees of this machine.
const SYSTEM: [&str; 8] = ["/usr", "/bin", "/lib", "/lib64", "/etc", "/proc", "/dev", "/opt"];

fn c_string(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

/// Calls the kernel; for the time between fork and exec.
fn checked(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Fills a root with parts of this machine's and with the binds.
fn steps(root: &Path, binds: &[(PathBuf, PathBuf, bool)]) -> Vec<Step> {
    let below = |path: &Path| root.join(path.strip_prefix("/").unwrap());
    let mut steps = Vec::new();
    for path in SYSTEM.map(Path::new) {
        let target = c_string(&below(path));
        if let Ok(link) = path.read_link() {
            steps.push(Step::Symlink(c_string(&link), target));
        } else if path.exists() {
            steps.push(Step::Directory(target.clone()));
            steps.push(Step::Bind { source: c_string(path), target, recursive: true });
        }
    }
    for (source, target, read_only) in binds {
        let target = below(target);
        let mut above: Vec<&Path> = target.ancestors().take_while(|path| *path != root).collect();
        above.reverse();
        steps.extend(above.into_iter().map(|path| Step::Directory(c_string(path))));
        let (source, target) = (c_string(source), c_string(&target));
        steps.push(Step::Bind { source, target: target.clone(), recursive: false });
        if *read_only {
            steps.push(Step::ReadOnly(target));
        }
    }
    steps
}

fn carry_out(step: &Step) -> io::Result<()> {
    let nothing = std::ptr::null();
    // SAFETY: the strings outlive the calls, and nothing is allocated.
    unsafe {
        match step {
            Step::Directory(path) => match checked(libc::mkdir(path.as_ptr(), 0o755)) {
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
                result => result,
            },
            Step::Symlink(to, path) => checked(libc::symlink(to.as_ptr(), path.as_ptr())),
            Step::Bind { source, target, recursive } => {
                let flags = libc::MS_BIND | if *recursive { libc::MS_REC } else { 0 };
                checked(libc::mount(source.as_ptr(), target.as_ptr(), nothing, flags, nothing.cast()))
            }
            Step::ReadOnly(target) => {
                let flags = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | libc::MS_NODEV;
                checked(libc::mount(nothing, target.as_ptr(), nothing, flags, nothing.cast()))
            }
        }
    }
}

/// Enters the namespaces of the container, and a root of its own, as a runtime does it.
fn enter(userns: Option<i32>, root: &CString, steps: &[Step]) -> io::Result<()> {
    let nothing = std::ptr::null();
    // SAFETY: the strings outlive the calls, and nothing is allocated.
    unsafe {
        if let Some(userns) = userns {
            checked(libc::setns(userns, libc::CLONE_NEWUSER))?;
            checked(libc::setgroups(0, std::ptr::null()))?;
            checked(libc::setresgid(0, 0, 0))?;
            checked(libc::setresuid(0, 0, 0))?;
        }
        checked(libc::unshare(libc::CLONE_NEWNS))?;
        let flags = libc::MS_REC | libc::MS_PRIVATE;
        checked(libc::mount(nothing, c"/".as_ptr(), nothing, flags, nothing.cast()))?;
        checked(libc::mount(nothing, root.as_ptr(), c"tmpfs".as_ptr(), 0, nothing.cast()))?;
        steps.iter().try_for_each(carry_out)?;
        checked(libc::chdir(root.as_ptr()))?;
        let here = c".".as_ptr();
        checked(libc::syscall(libc::SYS_pivot_root, here, here) as libc::c_int)?;
        checked(libc::umount2(here, libc::MNT_DETACH))?;
        checked(libc::chdir(c"/".as_ptr()))
    }
}

impl Container {
    /// Starts the process with these binds: source, target, whether it is read-only. `root` is an empty directory.
    pub fn start(root: &Path, binds: &[(PathBuf, PathBuf, bool)], id_map: Option<&IdMap>) -> Container {
        let steps = steps(root, binds);
        let root = c_string(root);
        let userns = id_map.map(|map| map.userns.as_raw_fd());
        let mut command = Command::new("python3");
        command.args(["-u", "-c", LOOP]).stdin(Stdio::piped()).stdout(Stdio::piped());
        // SAFETY: the closure makes only system calls, with memory that was allocated before.
        unsafe {
            command.pre_exec(move || enter(userns, &root, &steps));
        }
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let namespace = std::fs::File::open(format!("/proc/{}/ns/mnt", child.id())).unwrap().into();
        let stops = AtomicUsize::new(0);
        let mut container = Container { child, input, output, namespace, stops };
        container.run("None");
        container
    }

    /// Runs a piece of Python; its value.
    #[track_caller]
    pub fn run(&mut self, code: &str) -> serde_json::Value {
        match self.try_run(code) {
            Ok(value) => value,
            Err(problem) => panic!("{code}: {problem}"),
        }
    }

    /// Runs a piece of Python; its value, or the exception.
    #[track_caller]
    pub fn try_run(&mut self, code: &str) -> Result<serde_json::Value, String> {
        self.send(code);
        self.answer()
    }

    /// Tells it to do something, and does not wait.
    pub fn send(&mut self, code: &str) {
        let line = serde_json::to_string(code).unwrap();
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    #[track_caller]
    pub fn answer(&mut self) -> Result<serde_json::Value, String> {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let mut answer: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        match answer.get("error").and_then(serde_json::Value::as_str) {
            Some(problem) => Err(problem.to_owned()),
            None => Ok(answer["ok"].take()),
        }
    }

    /// The text of a file.
    #[track_caller]
    pub fn read(&mut self, path: &str) -> String {
        let text = self.run(&format!("open({path:?}).read()"));
        text.as_str().unwrap().to_owned()
    }

    /// Writes a file anew.
    #[track_caller]
    pub fn write(&mut self, path: &str, text: &str) {
        self.run(&format!("with open({path:?}, 'w') as file: file.write({text:?})"));
    }

    /// All paths below a directory, sorted.
    #[track_caller]
    pub fn list(&mut self, path: &str) -> Vec<String> {
        let code = format!(
            "sorted(os.path.relpath(os.path.join(base, name), {path:?}) \
             for base, names, files in os.walk({path:?}) for name in names + files)"
        );
        serde_json::from_value(self.run(&code)).unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Does something with the container as a running one.
    pub fn inside<T>(&self, look: impl FnOnce(Inside<'_>) -> T) -> T {
        let pid = self.child.id();
        let processes = move || vec![pid];
        look(Inside {
            mount_namespace: self.namespace.as_fd(),
            processes: &processes,
            freezer: &Stopped { pid, stops: &self.stops },
        })
    }

    /// Ends the process.
    pub fn end(mut self) {
        self.input.take();
        self.child.wait().unwrap();
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Stops one process by signals.
struct Stopped<'a> {
    pid: u32,
    stops: &'a AtomicUsize,
}

impl Freezer for Stopped<'_> {
    fn freeze(&self) -> io::Result<()> {
        self.stops.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the process is a child that was not waited for.
        checked(unsafe { libc::kill(self.pid as i32, libc::SIGSTOP) })?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !all_stopped(self.pid)? {
            assert!(Instant::now() < deadline, "the process does not stop");
            std::thread::sleep(Duration::from_micros(50));
        }
        Ok(())
    }

    fn thaw(&self) -> io::Result<()> {
        // SAFETY: as above.
        checked(unsafe { libc::kill(self.pid as i32, libc::SIGCONT) })
    }
}

fn all_stopped(pid: u32) -> io::Result<bool> {
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = std::fs::read_to_string(thread?.path().join("stat"))?;
        let state = status.rsplit(") ").next().unwrap_or_default();
        if !state.starts_with(['T', 't', 'Z', 'X']) {
            return Ok(false);
        }
    }
    Ok(true)
}
