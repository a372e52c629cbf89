//! Calls to the `runc` program.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Pid;

use crate::deadline;

/// Longest time for one call: far above the slowest start seen, so that a hanging program doesn't hang a task.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A call of `runc` failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuncError {
    /// The program could not be run.
    #[error("running `{program}`: {source}; install the package runc")]
    Missing {
        /// The program as configured.
        program: String,
        /// Why it didn't start.
        source: io::Error,
    },
    /// It ran and refused.
    #[error("`runc {command}` failed for the container `{id}`: {message}")]
    Failed {
        /// Its subcommand.
        command: &'static str,
        /// The container.
        id: String,
        /// The last error that it logged, or its exit status when it logged none.
        message: String,
    },
    /// It didn't end.
    #[error("`runc {command}` for the container `{id}` didn't end within {seconds} s and was killed")]
    TimedOut {
        /// Its subcommand.
        command: &'static str,
        /// The container.
        id: String,
        /// How long was waited.
        seconds: u64,
    },
    /// A file for it could not be written or read.
    #[error("file `{path}` for runc: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

/// The program and where it keeps its state.
#[derive(Debug, Clone)]
pub(crate) struct Runc {
    program: PathBuf,
    root: PathBuf,
    wants_id_mappings: bool,
}

impl Runc {
    /// Asks the program for its version.
    pub(crate) fn find(program: PathBuf, root: PathBuf) -> Result<Runc, RuncError> {
        let text = about(&program)
            .map_err(|source| RuncError::Missing { program: program.display().to_string(), source })?;
        Ok(Runc { program, root, wants_id_mappings: wants_id_mappings(version_of(&text)) })
    }

    /// Whether a specification that joins a user namespace must repeat the namespace's id mappings.
    pub(crate) fn wants_id_mappings(&self) -> bool {
        self.wants_id_mappings
    }

    /// Starts the container described in `bundle` and returns the id of its first process. The process becomes a child
    /// of this one when `runc` ends, because this process is a subreaper.
    pub(crate) fn run(&self, id: &str, bundle: &Path, stdio: [OwnedFd; 3]) -> Result<Pid, RuncError> {
        let pid_file = bundle.join("pid");
        let mut command = self.command(bundle);
        command.args(["run", "--detach", "--bundle"]).arg(bundle);
        command.arg("--pid-file").arg(&pid_file).arg(id);
        let [stdin, stdout, stderr] = stdio;
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        self.call("run", id, bundle, command)?;
        let file = |source| RuncError::File { path: pid_file.clone(), source };
        let text = fs::read_to_string(&pid_file).map_err(file)?;
        text.trim()
            .parse()
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| file(io::Error::other(format!("`{}` is no process id", text.trim()))))
    }

    /// Kills what is left of a container and removes what `runc` knows of it. One that it doesn't know is no error.
    pub(crate) fn delete(&self, id: &str, log_directory: &Path) -> Result<(), RuncError> {
        if !self.root.join(id).exists() {
            return Ok(());
        }
        let mut command = self.command(log_directory);
        command.args(["delete", "--force", id]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.call("delete", id, log_directory, command)
    }

    /// The containers that it knows.
    pub(crate) fn containers(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.root) else {
            return Vec::new();
        };
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
    }

    /// Forgets a container without its help, when [`Runc::delete`] failed.
    pub(crate) fn forget(&self, id: &str) {
        let _ = fs::remove_dir_all(self.root.join(id));
    }

    fn command(&self, log_directory: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root);
        command.arg("--log").arg(log_file(log_directory));
        command.args(["--log-format", "json"]);
        // SAFETY: the closure makes only async-signal-safe calls.
        unsafe {
            command.pre_exec(reset_signals);
        }
        command
    }

    fn call(
        &self,
        name: &'static str,
        id: &str,
        log_directory: &Path,
        mut command: Command,
    ) -> Result<(), RuncError> {
        let log = log_file(log_directory);
        // Errors of an earlier call must not be taken for this one's.
        let _ = fs::remove_file(&log);
        let missing = |source| RuncError::Missing { program: self.program.display().to_string(), source };
        let mut child = command.spawn().map_err(missing)?;
        // The command holds the container's pipes; their readers wait until the last copy is closed.
        drop(command);
        let Some(status) = deadline::wait(&mut child, TIMEOUT).map_err(missing)? else {
            return Err(RuncError::TimedOut { command: name, id: id.to_owned(), seconds: TIMEOUT.as_secs() });
        };
        if status.success() {
            return Ok(());
        }
        Err(RuncError::Failed {
            command: name,
            id: id.to_owned(),
            message: last_error(&log).unwrap_or_else(|| status.to_string()),
        })
    }
}

/// The version that the program tells, for example `1.1.5+ds1`.
pub(crate) fn version(program: &Path) -> Option<String> {
    Some(version_of(&about(program).ok()?).to_owned())
}

/// Whether the program was built with what it needs to filter system calls.
pub(crate) fn filters_calls(program: &Path) -> bool {
    about(program).is_ok_and(|text| text.contains("libseccomp"))
}

fn about(program: &Path) -> io::Result<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn version_of(about: &str) -> &str {
    let first = about.lines().next().unwrap_or_default();
    first.strip_prefix("runc version ").unwrap_or(first)
}

/// Up to 1.1.10 the mappings are required, later versions read them from the namespace and refuse to be told.
fn wants_id_mappings(version: &str) -> bool {
    let mut numbers = version.split(['.', '+', '-', '~']).map_while(|number| number.parse::<u32>().ok());
    let mut next = || numbers.next();
    match (next(), next(), next()) {
        (Some(major), Some(minor), patch) => (major, minor, patch.unwrap_or(0)) <= (1, 1, 10),
        _ => false,
    }
}

fn log_file(directory: &Path) -> PathBuf {
    directory.join("runc.log")
}

/// The container inherits this: a service may ignore or block signals, a container's process must not by default.
fn reset_signals() -> io::Result<()> {
    // All zeros: the default action, no flags, an empty mask. The C library would refuse two signals of its own.
    let default = [0_u64; 4];
    // SAFETY: the calls are async-signal-safe, `default` is as long as the kernel's structure or longer, and the set is
    // filled before use. Signals that can't be changed are refused without effect.
    unsafe {
        for signal in 1..=64 {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                size_of::<u64>(),
            );
        }
        let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
    Ok(())
}

/// The last message of level `error` in a log of JSON lines.
fn last_error(log: &Path) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Line {
        level: String,
        msg: String,
    }
    let reader = io::BufReader::new(File::open(log).ok()?);
    let text = io::read_to_string(reader).ok()?;
    text.lines()
        .filter_map(|line| serde_json::from_str::<Line>(line).ok())
        .rfind(|line| line.level == "error" || line.level == "fatal")
        .map(|line| line.msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_mappings_are_repeated_for_old_versions_alone() {
        for (version, wanted) in [
            ("1.0.0~rc93+ds1", true),
            ("1.1.5+ds1", true),
            ("1.1.10", true),
            ("1.1.12-0ubuntu3", false),
            ("1.1.15+ds1", false),
            ("1.2.0-rc.1", false),
            ("1.3.6+ds1", false),
            ("something else", false),
        ] {
            assert_eq!(wants_id_mappings(version), wanted, "{version}");
        }
    }
}
