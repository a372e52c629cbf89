//! One running container: its start, its end, and what is cleared away afterwards.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::cdi::{self, NodeDirectory};
use crate::cgroup::CgroupError;
use crate::freezer::Freezer;
use crate::network::host_resolv_conf;
use crate::runtime::{Shared, StartError};
use crate::sandbox::Sandbox;
use crate::spec::{self, ContainerSpec, SpecError, Stdio, Surroundings};

/// How long a killed container may take to be gone. Only a process that hangs in the kernel takes that long.
const KILL_TIMEOUT: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// How a container's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its status.
    pub status: ExitStatus,
    /// Whether the kernel killed a process of the container because the container's memory ran out. It need not have
    /// been the main process: look at `status` for that.
    pub out_of_memory: bool,
}

/// The status of an ended process.
///
/// The container's first process is an init that tells the death of the command by signal `n` as exit code 128 + `n`,
/// as a shell does. Codes 130 to 159 are therefore reported as signals. 129 is reported as a code: several common programs
/// exit with it by themselves, and nothing here sends a hang-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// A container could not be waited for, signalled or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// Waiting failed.
    #[error("waiting for the container `{id}`: {source}")]
    Wait {
        /// The container.
        id: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A signal could not be sent.
    #[error("sending signal {signal} to the container `{id}`: {source}")]
    Signal {
        /// The container.
        id: String,
        /// The signal's number.
        signal: i32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Something of it could not be removed.
    #[error("removing the container `{id}`: {source}")]
    Cgroup {
        /// The container.
        id: String,
        /// What is left.
        source: CgroupError,
    },
    /// Its files could not be removed.
    #[error("removing the container `{id}`: `{path}`: {source}")]
    Files {
        /// The container.
        id: String,
        /// The directory.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

/// A started container. Dropping it ends and removes it; [`Container::remove`] does the same and says what failed.
#[derive(Debug)]
pub struct Container {
    id: String,
    pid: Pid,
    process: OwnedFd,
    freezer: Freezer,
    exit: Mutex<Option<Exit>>,
    removed: Mutex<bool>,
    shared: Arc<Shared>,
}

impl Container {
    pub(crate) fn start(
        shared: &Arc<Shared>,
        sandbox: &Sandbox,
        container: &ContainerSpec,
        stdio: Stdio,
    ) -> Result<Container, StartError> {
        let id = container.id.clone();
        spec::check(container, sandbox.id_map().is_some())
            .map_err(|source| StartError::Spec { id: id.clone(), source })?;
        let bundle = Bundle::make(shared, sandbox, container)?;
        let stdin = match stdio.stdin {
            Some(stdin) => stdin,
            None => fs::File::open("/dev/null").map_err(bundle.failed("/dev/null"))?.into(),
        };
        let started = shared.runc.run(&id, &bundle.path, [stdin, stdio.stdout, stdio.stderr]);
        let started = started.map_err(StartError::from).and_then(|pid| {
            let process = pidfd_open(pid, PidfdFlags::NONBLOCK)
                .map_err(|errno| StartError::Follow { id: id.clone(), source: errno.into() })?;
            Ok((pid, process))
        });
        match started {
            Ok((pid, process)) => Ok(Container {
                freezer: Freezer::new(&id, &shared.hierarchies.group(&cgroup_path(shared, &id))),
                id,
                pid,
                process,
                exit: Mutex::new(None),
                removed: Mutex::new(false),
                shared: Arc::clone(shared),
            }),
            Err(error) => {
                if let Err(left) = clear_away(shared, &id) {
                    tracing::warn!(error = %left, "after a failed start");
                }
                Err(error)
            }
        }
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Waits for the end. May be dropped and called again, also after the end, and by several at a time.
    pub async fn wait(&self) -> Result<Exit, ContainerError> {
        // Registered with the runtime for this call alone, so each call needs a descriptor of its own.
        let process = self.process.try_clone().map_err(self.wait_failed())?;
        // SAFETY: the descriptor is owned by the registration, so it stays open and the same as long as that lives.
        let process = unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) }
            .map_err(|error| self.wait_failed()(error.into()))?;
        loop {
            if let Some(exit) = self.try_wait()? {
                return Ok(exit);
            }
            let mut ready = process.readable().await.map_err(self.wait_failed())?;
            ready.clear_ready();
        }
    }

    /// Like [`Container::wait`], on the calling thread.
    pub fn wait_blocking(&self) -> Result<Exit, ContainerError> {
        self.wait_for(None)
    }

    fn wait_for(&self, limit: Option<Timespec>) -> Result<Exit, ContainerError> {
        loop {
            if let Some(exit) = self.try_wait()? {
                return Ok(exit);
            }
            let mut polled = [PollFd::new(&self.process, PollFlags::IN)];
            match poll(&mut polled, limit.as_ref()) {
                Ok(0) => return Err(self.wait_failed()(io::ErrorKind::TimedOut.into())),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(self.wait_failed()(errno.into())),
            }
        }
    }

    /// The exit, if the container has ended.
    pub fn try_wait(&self) -> Result<Option<Exit>, ContainerError> {
        let mut exit = self.exit.lock().unwrap_or_else(PoisonError::into_inner);
        if exit.is_some() {
            return Ok(*exit);
        }
        let ended =
            waitid(WaitId::PidFd(self.process.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        let status = match ended {
            Ok(Some(status)) => status,
            Ok(None) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(None),
            Err(errno) => return Err(self.wait_failed()(errno.into())),
        };
        let status = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => status_of_command(code),
            (None, Some(signal)) => ExitStatus::Signal(signal),
            (None, None) => return Ok(None),
        };
        *exit = Some(Exit { status, out_of_memory: self.group().memory_kills() > 0 });
        Ok(*exit)
    }

    /// Sends a signal to the command. Signal 9 ends the whole container. Sending to one that has ended is no error.
    pub fn signal(&self, signal: i32) -> Result<(), ContainerError> {
        let failed = |source| ContainerError::Signal { id: self.id.clone(), signal, source };
        let known = Signal::from_named_raw(signal)
            .ok_or_else(|| failed(io::Error::from_raw_os_error(libc::EINVAL)))?;
        match pidfd_send_signal(&self.process, known) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(failed(errno.into())),
        }
    }

    /// Ends every process of the container that is left and removes what there is of it on the machine. The exit of a
    /// container that was waited for stays readable. Calling it again after a success does nothing.
    pub fn remove(&self) -> Result<(), ContainerError> {
        let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        if *removed {
            return Ok(());
        }
        // So that the reason is known to those who wait later, and no zombie stays.
        self.signal(libc::SIGKILL)?;
        self.wait_for(Some(KILL_TIMEOUT))?;
        clear_away(&self.shared, &self.id)?;
        *removed = true;
        Ok(())
    }

    /// Stops and continues all of its processes.
    pub fn freezer(&self) -> &Freezer {
        &self.freezer
    }

    /// Opens its mount namespace; `None` when the container has ended. What is mounted in it stays mounted until the
    /// descriptor is closed, also when the container ends meanwhile.
    pub fn mount_namespace(&self) -> Result<Option<OwnedFd>, ContainerError> {
        let opened = fs::File::open(format!("/proc/{}/ns/mnt", self.pid.as_raw_nonzero()));
        // While it was not waited for, the id was its own, and the namespace too.
        if self.try_wait()?.is_some() {
            return Ok(None);
        }
        match opened {
            Ok(file) => Ok(Some(file.into())),
            // It is about to end: its namespaces go before it can be waited for.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
            Err(error) => Err(self.wait_failed()(error)),
        }
    }

    /// Ids of its processes, as this process sees them; none when it has ended.
    pub fn processes(&self) -> Vec<u32> {
        self.group().processes().unwrap_or_else(|error| {
            tracing::warn!(%error, "processes of a container are not known");
            Vec::new()
        })
    }

    fn group(&self) -> crate::cgroup::Cgroup {
        self.shared.hierarchies.group(&cgroup_path(&self.shared, &self.id))
    }

    fn wait_failed(&self) -> impl Fn(io::Error) -> ContainerError {
        let id = self.id.clone();
        move |source| ContainerError::Wait { id: id.clone(), source }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::error!(%error, "a container is left until the next recovery");
        }
    }
}

fn status_of_command(code: i32) -> ExitStatus {
    match code {
        130..=159 => ExitStatus::Signal(code - 128),
        _ => ExitStatus::Code(code),
    }
}

fn cgroup_path(shared: &Shared, id: &str) -> String {
    format!("{}/{id}", shared.names.cgroup())
}

/// Removes what there is of a container, whether it started or not.
fn clear_away(shared: &Shared, id: &str) -> Result<(), ContainerError> {
    let bundle = shared.bundles().join(id);
    if let Err(error) = shared.runc.delete(id, &bundle) {
        tracing::warn!(%error, "its cgroup is cleared and its record forgotten");
        shared.runc.forget(id);
    }
    shared
        .hierarchies
        .group(&cgroup_path(shared, id))
        .end()
        .map_err(|source| ContainerError::Cgroup { id: id.to_owned(), source })?;
    match fs::remove_dir_all(&bundle) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(ContainerError::Files { id: id.to_owned(), path: bundle, source }),
    }
}

/// The directory with a container's specification and the files made for it. Removed with the container.
struct Bundle {
    id: String,
    path: PathBuf,
}

impl Bundle {
    fn make(shared: &Shared, sandbox: &Sandbox, container: &ContainerSpec) -> Result<Bundle, StartError> {
        let bundle = Bundle { id: container.id.clone(), path: shared.bundles().join(&container.id) };
        match fs::create_dir(&bundle.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(StartError::Exists(bundle.id));
            }
            Err(error) => return Err(bundle.failed(&bundle.path)(error)),
        }
        bundle.fill(shared, sandbox, container).inspect_err(|_| {
            let _ = fs::remove_dir_all(&bundle.path);
        })?;
        Ok(bundle)
    }

    fn fill(&self, shared: &Shared, sandbox: &Sandbox, container: &ContainerSpec) -> Result<(), StartError> {
        let hostname = spec::hostname(container);
        let hosts = format!(
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{}\t{hostname}\n",
            sandbox.address()
        );
        let root = sandbox.root_id();
        for (name, content) in
            [("resolv.conf", host_resolv_conf()), ("hosts", hosts), ("hostname", format!("{hostname}\n"))]
        {
            let path = self.path.join(name);
            fs::write(&path, content).map_err(self.failed(&path))?;
            std::os::unix::fs::chown(&path, Some(root), Some(root)).map_err(self.failed(&path))?;
        }
        let surroundings = Surroundings {
            user_namespace: sandbox.userns_path(),
            host_base: sandbox.id_map().filter(|_| shared.runc.wants_id_mappings()).map(|map| map.host_base),
            network_namespace: sandbox.netns_path(),
            cgroup: cgroup_path(shared, &self.id),
            cgroup_namespace: shared.hierarchies.unified(),
            limit_swap: shared.hierarchies.limits_swap(),
            init: &shared.options.init,
            etc: &self.path,
        };
        let refused = |source: SpecError| StartError::Spec { id: self.id.clone(), source };
        let mut spec = spec::build(container, &surroundings).map_err(refused)?;
        if !container.devices.is_empty() {
            cdi::apply(
                &shared.options.cdi_dirs,
                &container.devices,
                &mut spec,
                sandbox.id_map().map(|_| NodeDirectory { path: &self.path, root_id: root }),
            )
            .map_err(|source| StartError::Device { id: self.id.clone(), source })?;
        }
        let json =
            serde_json::to_vec(&spec).map_err(|error| refused(SpecError::Malformed(error.to_string())))?;
        self.write_specification(&json, root)
    }

    /// The environment in it may hold secrets. Besides this machine's root, only the container's may read it: a device's
    /// hook that runs with the container's ids looks there for the root.
    fn write_specification(&self, json: &[u8], root: u32) -> Result<(), StartError> {
        let path = self.path.join("config.json");
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(self.failed(&path))?;
        file.write_all(json).map_err(self.failed(&path))?;
        fchown(&file, Some(root), Some(root)).map_err(self.failed(&path))
    }

    fn failed(&self, path: impl AsRef<Path>) -> impl Fn(io::Error) -> StartError {
        let (id, path) = (self.id.clone(), path.as_ref().to_owned());
        move |source| StartError::File { id: id.clone(), path: path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_tell_a_signal_are_reported_as_one() {
        assert_eq!(status_of_command(137), ExitStatus::Signal(9));
        assert_eq!(status_of_command(139), ExitStatus::Signal(11));
        for code in [0, 1, 127, 128, 129, 160, 255] {
            assert_eq!(status_of_command(code), ExitStatus::Code(code));
        }
    }
}
