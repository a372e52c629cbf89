//! Makes and enters namespaces.
//!
//! A network namespace is owned by the user namespace that its maker was in, so both are made together, by a short-lived
//! child that does nothing else; open descriptors then keep them alive until the container runtime joins them by path.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Number of ids in each container's user namespace.
pub(crate) const IDS: u32 = 65_536;

/// A namespace could not be made or entered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NamespaceError {
    /// The kernel refused to make the namespaces.
    #[error("the kernel refused to make {what}: {source}")]
    Make {
        /// Which namespaces.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The id mapping was refused.
    #[error(
        "writing `{file}` of a new user namespace (container ids 0 to 65535 from host id {host_base}): {source}"
    )]
    Map {
        /// `uid_map` or `gid_map`.
        file: &'static str,
        /// First host id of the mapping.
        host_base: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A descriptor of a new namespace could not be opened.
    #[error("opening the new namespace at `{path}`: {source}")]
    Open {
        /// Path below `/proc`.
        path: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A thread for work inside a namespace could not be started, or it ended early.
    #[error("starting a thread for work in a network namespace: {0}")]
    Thread(io::Error),
    /// A network namespace could not be entered.
    #[error("entering a network namespace: {0}")]
    Enter(io::Error),
}

/// New namespaces, alive as long as these descriptors or a process inside.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// Present when a user namespace was asked for.
    pub(crate) user: Option<OwnedFd>,
    /// Owned by `user` when that is present.
    pub(crate) net: OwnedFd,
}

/// Makes a network namespace and, with `host_base`, a user namespace around it that maps ids 0 to 65535 to the host's
/// from `host_base` on.
pub(crate) fn make(host_base: Option<u32>) -> Result<Namespaces, NamespaceError> {
    let child = Holder::spawn(host_base.is_some())?;
    if let Some(host_base) = host_base {
        for file in ["uid_map", "gid_map"] {
            std::fs::write(format!("/proc/{}/{file}", child.pid), format!("0 {host_base} {IDS}"))
                .map_err(|source| NamespaceError::Map { file, host_base, source })?;
        }
    }
    Ok(Namespaces { user: host_base.map(|_| child.open("user")).transpose()?, net: child.open("net")? })
}

/// Tries whether a user namespace with ids of its own can be made here.
pub(crate) fn probe_user_namespaces() -> Result<(), NamespaceError> {
    make(Some(1 << 30)).map(drop)
}

/// Runs `work` on a thread of its own inside the network namespace.
///
/// A thread's namespace is set for good, so it must not be one that anything else uses later.
pub(crate) fn within<T: Send>(
    netns: Option<BorrowedFd<'_>>,
    work: impl FnOnce() -> T + Send,
) -> Result<T, NamespaceError> {
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, move || {
                if let Some(netns) = netns {
                    move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))
                        .map_err(|errno| NamespaceError::Enter(errno.into()))?;
                }
                Ok(work())
            })
            .map_err(NamespaceError::Thread)?;
        worker.join().unwrap_or_else(|_| Err(NamespaceError::Thread(io::Error::other("it panicked"))))
    })
}

/// A child that sits in the new namespaces until it is dropped.
struct Holder {
    pid: libc::pid_t,
}

impl Holder {
    fn spawn(with_user: bool) -> Result<Holder, NamespaceError> {
        let (flags, what) = if with_user {
            (libc::CLONE_NEWUSER | libc::CLONE_NEWNET, "a user namespace with a network namespace")
        } else {
            (libc::CLONE_NEWNET, "a network namespace")
        };
        // CLONE_FILES shares the table of descriptors: a copy would keep other containers' pipes open for a moment.
        let flags = flags | libc::CLONE_FILES | libc::SIGCHLD;
        let parent = rustix::process::getpid().as_raw_nonzero().get();

        // The child inherits this thread's mask: no handler of this process may ever run in it.
        let mut previous = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `all` is filled before use, both pointers are valid for the calls.
        unsafe {
            let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), previous.as_mut_ptr());
        }
        // SAFETY: no stack is given and memory is not shared, so the child is a copy of this thread alone. Until it
        // ends it makes only system calls, takes no lock and allocates nothing.
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        if pid == 0 {
            // SAFETY: plain system calls without pointers. When the parent is already gone, the child ends.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                // In the child's pid namespace, which is the parent's, the parent has its own id.
                if libc::getppid() == parent {
                    loop {
                        libc::pause();
                    }
                }
                libc::_exit(0);
            }
        }
        let refused = io::Error::last_os_error();
        // SAFETY: `previous` was filled by the first call.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, previous.as_ptr(), std::ptr::null_mut());
        }
        match libc::pid_t::try_from(pid) {
            Ok(pid) if pid > 0 => Ok(Holder { pid }),
            _ => Err(NamespaceError::Make { what, source: refused }),
        }
    }

    fn open(&self, kind: &str) -> Result<OwnedFd, NamespaceError> {
        let path = format!("/proc/{}/ns/{kind}", self.pid);
        match File::open(&path) {
            Ok(file) => Ok(file.into()),
            Err(source) => Err(NamespaceError::Open { path, source }),
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // SAFETY: the child has not been waited for, so the id is still its own.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            while libc::waitpid(self.pid, std::ptr::null_mut(), 0) == -1
                && *libc::__errno_location() == libc::EINTR
            {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn work_within_a_new_network_namespace_sees_only_loopback() {
        let namespaces = make(None).unwrap();
        let links = within(Some(namespaces.net.as_fd()), || {
            std::fs::read_to_string("/proc/thread-self/net/dev").unwrap()
        })
        .unwrap();
        let names: Vec<_> = links.lines().filter_map(|line| Some(line.split_once(':')?.0.trim())).collect();
        assert!(names.contains(&"lo"), "{names:?}");
        assert!(!names.iter().any(|name| name.starts_with("eth")), "{names:?}");
    }

    #[test]
    fn an_id_range_beyond_the_last_id_is_refused_by_name() {
        let refused = make(Some(u32::MAX - 1)).unwrap_err();
        assert!(matches!(refused, NamespaceError::Map { file: "uid_map", .. }), "{refused}");
    }
}
