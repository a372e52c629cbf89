//! The file system in the file, as a mount.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use super::loop_device::LoopDevice;

/// A mounted file system that has no place yet. It is gone with this value, whatever becomes of the process.
#[derive(Debug)]
pub(super) struct Unplaced(OwnedFd);

impl Unplaced {
    /// Mounts the file system in a file.
    pub(super) fn mount(path: &Path) -> io::Result<Unplaced> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let device = LoopDevice::attach(&file)?;
        let source = device.path.as_os_str();
        let context = fsopen("xfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let mounted = fsconfig_set_string(&context, "source", source)
            .and_then(|()| fsconfig_create(&context))
            // Reading a container's files would otherwise write.
            .and_then(|()| {
                fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NOATIME)
            });
        mounted.map(Unplaced).map_err(|errno| explained(&context, errno))
    }

    /// Its root, as a path of this process.
    pub(super) fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()))
    }

    /// Everything that was written is on disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        let root = File::open(self.root())?;
        Ok(rustix::fs::syncfs(root.as_fd())?)
    }

    /// Mounts it on a directory.
    pub(super) fn place(self, target: &Path) -> io::Result<()> {
        Ok(move_mount(self.0.as_fd(), "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
    }
}

/// Takes the mount off a directory. Fails while anything uses it, in any mount namespace.
pub(super) fn unplace(target: &Path) -> io::Result<()> {
    Ok(unmount(target, UnmountFlags::NOFOLLOW)?)
}

/// What the kernel says about a refused mount, with its words where it has some.
fn explained(context: &OwnedFd, errno: rustix::io::Errno) -> io::Error {
    let mut message = vec![0; 512];
    let said = match rustix::io::read(context, &mut message) {
        Ok(length) => String::from_utf8_lossy(&message[..length]).trim().to_owned(),
        Err(_) => String::new(),
    };
    let error = io::Error::from(errno);
    if said.is_empty() { error } else { io::Error::new(error.kind(), format!("{error}: {said}")) }
}
