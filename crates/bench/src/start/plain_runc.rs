//! The peer: the same root file system and the same interpreter, with nothing but `runc`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use serde_json::{Value, json};

use super::StartOptions;
use crate::BenchError;
use crate::error::io_error;
use crate::interruption::Interruption;

/// Seconds of `runc run`, from its start to its exit, container removed.
#[derive(Debug, Default)]
pub(super) struct PlainRunc {
    /// Of `true`: what `runc` itself takes.
    pub(super) nothing: Vec<f64>,
    /// Of `python -I -c pass`.
    pub(super) interpreter: Vec<f64>,
}

/// Runs containers over the root of a task that is alive. The root is mounted where the server has its mounts,
/// so this looks at it from there.
pub(super) fn measure(
    options: &StartOptions,
    task_id: &str,
    executable: &str,
    dir: &Path,
    interruption: &Interruption,
) -> Result<PlainRunc, BenchError> {
    let root = root_of(&options.data_dir, task_id)?;
    let namespace = PathBuf::from(format!("/proc/{}/ns/mnt", options.server_pid));
    let mounts = File::open(&namespace).map_err(io_error("open", &namespace))?;
    std::thread::scope(|scope| {
        let work = || {
            // SAFETY: the thread gets a working directory and root of its own, which the kernel
            // wants before the change of the mount namespace; descriptors stay shared.
            unsafe { unshare_unsafe(UnshareFlags::FS) }
                .map_err(|errno| BenchError::Namespace(errno.into()))?;
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&mounts), Some(LinkNameSpaceType::Mount))
                .map_err(|errno| BenchError::Namespace(errno.into()))?;
            let mut plain = PlainRunc::default();
            for _ in 0..options.runs {
                interruption.check()?;
                plain.nothing.push(run(&root, &["/bin/true"], dir)?);
                plain.interpreter.push(run(&root, &[executable, "-I", "-c", "pass"], dir)?);
            }
            Ok(plain)
        };
        let thread = std::thread::Builder::new()
            .name("plain-runc".into())
            .spawn_scoped(scope, work)
            .map_err(BenchError::Thread)?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Where the root of a running task is, from the bundle that its container was made of.
fn root_of(data_dir: &Path, task_id: &str) -> Result<PathBuf, BenchError> {
    let bundles = data_dir.join("runtime/bundles");
    for entry in fs::read_dir(&bundles).map_err(io_error("list", &bundles))? {
        let entry = entry.map_err(io_error("list", &bundles))?;
        if !entry.file_name().to_string_lossy().contains(task_id) {
            continue;
        }
        let path = entry.path().join("config.json");
        let text = fs::read(&path).map_err(io_error("read", &path))?;
        let config: Value =
            serde_json::from_slice(&text).map_err(|error| io_error("understand", &path)(error))?;
        if let Some(root) = config["root"]["path"].as_str() {
            return Ok(PathBuf::from(root));
        }
    }
    Err(BenchError::NoBundle { task: task_id.to_owned(), dir: bundles })
}

fn run(root: &Path, argv: &[&str], dir: &Path) -> Result<f64, BenchError> {
    let bundle = dir.join("bundle");
    fs::create_dir_all(&bundle).map_err(io_error("make the directory", &bundle))?;
    let path = bundle.join("config.json");
    let text = config(root, argv).to_string();
    fs::write(&path, text).map_err(io_error("write", &path))?;
    let mut command = Command::new("runc");
    command
        .arg("--root")
        .arg(dir.join("runc"))
        .args(["run", "--bundle"])
        .arg(&bundle)
        .arg(format!("homeport-bench-{}", std::process::id()))
        .stdin(Stdio::null());
    let begin = Instant::now();
    let output = command.output().map_err(io_error("run", Path::new("runc")))?;
    let seconds = begin.elapsed().as_secs_f64();
    if !output.status.success() {
        return Err(BenchError::Runc {
            command: argv.join(" "),
            output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    Ok(seconds)
}

/// The least that makes a container: namespaces of its own, no network, no limits.
fn config(root: &Path, argv: &[&str]) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": root, "readonly": true},
        "process": {
            "args": argv,
            "cwd": "/",
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "user": {"uid": 0, "gid": 0},
            "noNewPrivileges": true,
            "capabilities": {"bounding": [], "effective": [], "permitted": []},
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "mode=755", "size=65536k"]},
        ],
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"},
            ],
        },
    })
}
