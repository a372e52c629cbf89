//! The kernel's mount calls, each with an error that says what was tried and what the kernel
//! wrote about it.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use homeport_store::Pin;
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};

use crate::error::{FsError, io_error};

/// A file system that is being configured.
pub(crate) struct Context<'a> {
    fd: OwnedFd,
    target: &'a str,
}

impl<'a> Context<'a> {
    /// Starts a mount of a file system of this type; `target` is for messages.
    pub(crate) fn open(kind: &str, target: &'a str) -> Result<Context<'a>, FsError> {
        let fd = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| FsError::Mount {
            target: target.to_owned(),
            step: format!("fsopen {kind}"),
            messages: String::new(),
            source: errno.into(),
        })?;
        Ok(Context { fd, target })
    }

    pub(crate) fn flag(&self, key: &str) -> Result<(), FsError> {
        fsconfig_set_flag(&self.fd, key).map_err(|errno| self.failed(format!("`{key}`"), errno))
    }

    pub(crate) fn string(&self, key: &str, value: &str) -> Result<(), FsError> {
        fsconfig_set_string(&self.fd, key, value)
            .map_err(|errno| self.failed(format!("`{key}={value}`"), errno))
    }

    pub(crate) fn descriptor(&self, key: &str, fd: BorrowedFd<'_>) -> Result<(), FsError> {
        fsconfig_set_fd(&self.fd, key, fd)
            .map_err(|errno| self.failed(format!("`{key}` by descriptor"), errno))
    }

    /// Makes the mount, attached nowhere.
    pub(crate) fn mount(self, read_only: bool) -> Result<OwnedFd, FsError> {
        fsconfig_create(&self.fd).map_err(|errno| self.failed("fsconfig create".into(), errno))?;
        let attributes = if read_only { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
        fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(|errno| self.failed("fsmount".into(), errno))
    }

    fn failed(&self, step: String, errno: rustix::io::Errno) -> FsError {
        FsError::Mount {
            target: self.target.to_owned(),
            step,
            messages: self.messages(),
            source: errno.into(),
        }
    }

    /// What the kernel has to say, one message a read, until it has no more.
    fn messages(&self) -> String {
        let mut all = Vec::new();
        let mut buffer = [0_u8; 1024];
        while let Ok(length) = rustix::io::read(&self.fd, &mut buffer) {
            if length == 0 || all.len() > 16 {
                break;
            }
            let text = String::from_utf8_lossy(&buffer[..length]);
            // Messages begin with their level: `e `, `w ` or `i `.
            all.push(text.get(2..).unwrap_or_default().trim_end().to_owned());
        }
        all.join("; ")
    }
}

/// A copy of the mount behind `fd`, attached nowhere, with its ids mapped by a user namespace.
pub(crate) fn id_mapped(
    fd: BorrowedFd<'_>,
    user_namespace: BorrowedFd<'_>,
    target: &str,
) -> Result<OwnedFd, FsError> {
    let failed = |step: &str, source: io::Error| FsError::Mount {
        target: target.to_owned(),
        step: step.to_owned(),
        messages: String::new(),
        source,
    };
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let copy = open_tree(fd, "", flags).map_err(|errno| failed("open_tree of a layer", errno.into()))?;
    let mapped = Attributes { user_namespace: Some(user_namespace), ..Attributes::default() };
    set_attributes(copy.as_fd(), c"", mapped)
        .map_err(|source| failed("mount_setattr to map the ids of a layer", source))?;
    Ok(copy)
}

/// What to change of one mount.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Attributes<'a> {
    /// `MOUNT_ATTR_…` to set.
    pub(crate) set: u64,
    /// `MOUNT_ATTR_…` to clear.
    pub(crate) clear: u64,
    /// Whose ids to map.
    pub(crate) user_namespace: Option<BorrowedFd<'a>>,
}

/// Changes the mount at `path` below `directory`, or that of `directory` itself where the path is empty.
pub(crate) fn set_attributes(
    directory: BorrowedFd<'_>,
    path: &CStr,
    wanted: Attributes<'_>,
) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: wanted.set | if wanted.user_namespace.is_some() { libc::MOUNT_ATTR_IDMAP } else { 0 },
        attr_clr: wanted.clear,
        propagation: 0,
        userns_fd: wanted.user_namespace.map_or(0, |namespace| namespace.as_raw_fd() as u64),
    };
    // SAFETY: the path is a C string, and the attributes outlive the call, which is told their size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            directory.as_raw_fd(),
            path.as_ptr(),
            if path.is_empty() { libc::AT_EMPTY_PATH } else { libc::AT_SYMLINK_NOFOLLOW },
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Attaches a mount at `target`.
pub(crate) fn attach(fd: BorrowedFd<'_>, target: &Path) -> Result<(), FsError> {
    move_mount(fd, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(io_error("attach a mount at", target))
}

/// Takes the mount away from `target` now, while it is used by nobody.
pub(crate) fn detach(target: &Path) -> io::Result<()> {
    Ok(unmount(target, UnmountFlags::NOFOLLOW)?)
}

/// Takes the mount away from `target`; it lives on for who uses it.
pub(crate) fn detach_lazily(target: &Path) -> io::Result<()> {
    Ok(unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?)
}

static NEXT_PLACE: AtomicU64 = AtomicU64::new(0);

/// A mount that serves as a layer of others.
///
/// Kernels before 6.15 take layers only from the mount table, so there it is attached at a
/// place of its own until it is dropped.
#[derive(Debug)]
pub(crate) struct LayerMount {
    fd: OwnedFd,
    place: Option<PathBuf>,
    /// Keeps the content of the layer in the store.
    _pin: Option<Pin>,
}

impl LayerMount {
    /// Wraps a mount; attaches it below `places` if that is given.
    pub(crate) fn new(fd: OwnedFd, places: Option<&Path>) -> Result<LayerMount, FsError> {
        let Some(places) = places else {
            return Ok(LayerMount { fd, place: None, _pin: None });
        };
        let number = NEXT_PLACE.fetch_add(1, Ordering::Relaxed);
        let place = places.join(format!("{}-{number}", std::process::id()));
        std::fs::create_dir_all(&place).map_err(io_error("make the directory", &place))?;
        let attached = attach(fd.as_fd(), &place);
        let mount = LayerMount { fd, place: Some(place), _pin: None };
        attached.map(|()| mount)
    }

    /// Keeps what is mounted in the store for as long as the mount lives.
    pub(crate) fn pinned(mut self, pin: Pin) -> LayerMount {
        self._pin = Some(pin);
        self
    }

    /// The root of the mount.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for LayerMount {
    fn drop(&mut self) {
        let Some(place) = &self.place else {
            return;
        };
        match detach_lazily(place) {
            Ok(()) => {}
            // Attaching had failed.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => tracing::warn!(%error, place = %place.display(), "a layer stays mounted"),
        }
        if let Err(error) = std::fs::remove_dir(place) {
            tracing::warn!(%error, place = %place.display(), "a mount point stays");
        }
    }
}

/// A copy of the mount that a directory is on, with that directory as its root, attached
/// nowhere.
pub(crate) fn bind(path: &Path) -> Result<OwnedFd, FsError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, path, flags).map_err(io_error("open as a mount", path))
}
