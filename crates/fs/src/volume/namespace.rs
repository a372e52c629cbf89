//! The mounts of a Volume inside a container's mount namespace.
//!
//! A thread enters the namespace and never leaves it, so each call has a thread of its own. The places are found by the
//! device of the overlay, because a container can rename the directories above them.

use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::error::inside;
use super::{VolumeError, VolumePlace};
use crate::kernel::{self, Attributes};

/// A thread that is inside a container's mount namespace.
pub(super) struct Entered {
    /// This machine's `/proc`: that of the container knows nothing of this thread.
    proc: OwnedFd,
}

/// A place as it is mounted now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mounted {
    pub(super) id: u64,
    /// The path in the container.
    pub(super) path: PathBuf,
    root: PathBuf,
    /// Paths of other mounts on this one.
    inner: Vec<PathBuf>,
}

/// Runs `work` on a thread inside the mount namespace.
pub(super) fn enter<T: Send>(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce(&Entered) -> Result<T, VolumeError> + Send,
) -> Result<T, VolumeError> {
    let root = Path::new("/");
    let proc = rustix::fs::open("/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(inside("enter the namespace of", root))?;
    let entered = Entered { proc };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("in-container".into()).spawn_scoped(scope, move || {
            let failed = || inside("enter the namespace of", root);
            // SAFETY: only the working directory and the root stop being shared with other threads.
            unsafe { unshare_unsafe(UnshareFlags::FS) }.map_err(failed())?;
            move_into_link_name_space(namespace, Some(LinkNameSpaceType::Mount)).map_err(failed())?;
            work(&entered)
        });
        let thread = thread.map_err(inside("start a thread for", root))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Entered {
    /// Where the overlay with this device number is mounted, for each of the places.
    pub(super) fn locate(&self, device: u64, places: &[VolumePlace]) -> Result<Vec<Mounted>, VolumeError> {
        let table = PathBuf::from(format!("/proc/self/fd/{}", self.proc.as_raw_fd()));
        let failed = inside("read the mounts at", &table);
        let file = rustix::fs::openat(
            &self.proc,
            "thread-self/mountinfo",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        let mut text = Vec::new();
        let read = file
            .map_err(io::Error::from)
            .and_then(|file| io::Read::read_to_end(&mut fs::File::from(file), &mut text));
        read.map_err(failed)?;
        let paths: Vec<PathBuf> = places
            .iter()
            .map(|place| fs::canonicalize(&place.path).unwrap_or_else(|_| place.path.clone()))
            .collect();
        assign(mounts_of(&text, device), &paths, places)
    }

    /// Whether no file, directory or other mount keeps the mount in use.
    pub(super) fn is_unused(&self, mount: &Mounted) -> Result<bool, VolumeError> {
        // A look at it takes away the mark of an earlier question; a second question in a row would unmount it.
        self.look_at(mount)?;
        let answer = unmount(&mount.path, UnmountFlags::EXPIRE | UnmountFlags::NOFOLLOW);
        let unused = match answer {
            Err(rustix::io::Errno::AGAIN) => true,
            Err(rustix::io::Errno::BUSY) => false,
            Err(errno) => return Err(inside("see who uses", &mount.path)(errno)),
            Ok(()) => return Err(inside("see who uses", &mount.path)(io::Error::other("it was unmounted"))),
        };
        self.look_at(mount)?;
        Ok(unused)
    }

    fn look_at(&self, mount: &Mounted) -> Result<(), VolumeError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&mount.path, flags, Mode::empty());
        opened.map(drop).map_err(inside("look at", &mount.path))
    }

    /// Makes the mount read-only, or writable again. Says `false` if a file is open for writing.
    pub(super) fn set_read_only(&self, mount: &Mounted, read_only: bool) -> Result<bool, VolumeError> {
        let failed = || inside("set the rights of", &mount.path);
        let path = CString::new(mount.path.as_os_str().as_bytes())
            .map_err(|error| failed()(io::Error::other(error)))?;
        let (set, clear) =
            if read_only { (libc::MOUNT_ATTR_RDONLY, 0) } else { (0, libc::MOUNT_ATTR_RDONLY) };
        match kernel::set_attributes(CWD, &path, Attributes { set, clear, user_namespace: None }) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(false),
            Err(error) => Err(failed()(error)),
        }
    }

    /// Puts the new mounts in place of the old ones, all or none. At no time is a place empty. What is mounted inside
    /// the old ones is inside the new ones then. Gives copies of the old ones: with the last of them goes the overlay.
    pub(super) fn swap(&self, swaps: &[(&Mounted, &OwnedFd)]) -> Result<Vec<OwnedFd>, VolumeError> {
        let mut done: Vec<(&Mounted, OwnedFd)> = Vec::new();
        for (mount, new) in swaps {
            let swapped = copy_of(&mount.path, OpenTreeFlags::empty())
                .and_then(|old| replace(mount, new.as_fd()).map(|()| old));
            match swapped {
                Ok(old) => done.push((mount, old)),
                Err(error) => {
                    for (mount, old) in done.iter().rev() {
                        if let Err(error) = replace(mount, old.as_fd()) {
                            let place = mount.path.display();
                            tracing::error!(%error, %place, "a place of a Volume shows another version");
                        }
                    }
                    return Err(error);
                }
            }
        }
        Ok(done.into_iter().map(|(_, old)| old).collect())
    }
}

/// A copy of the mount at a path, attached nowhere.
fn copy_of(path: &Path, how: OpenTreeFlags) -> Result<OwnedFd, VolumeError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | how;
    open_tree(CWD, path, flags).map_err(inside("copy the mount at", path))
}

fn replace(mount: &Mounted, new: BorrowedFd<'_>) -> Result<(), VolumeError> {
    let mut inner = Vec::new();
    for path in &mount.inner {
        let missing = || io::Error::other("the version that is to be shown has no directory for it");
        let below = path.strip_prefix(&mount.path).map_err(|_| inside("find", path)(missing()))?;
        let about = rustix::fs::statat(new, below, AtFlags::SYMLINK_NOFOLLOW);
        about.map_err(|_| inside("keep what is mounted at", path)(missing()))?;
        inner.push((path, copy_of(path, OpenTreeFlags::AT_RECURSIVE)?));
    }
    let path = &mount.path;
    let attach = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(new, "", CWD, path, attach | MoveMountFlags::MOVE_MOUNT_BENEATH)
        .map_err(inside("mount beneath", path))?;
    unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        .map_err(inside("detach the mount at", path))?;
    for (path, copy) in inner {
        move_mount(&copy, "", CWD, path, attach).map_err(inside("mount again at", path))?;
    }
    Ok(())
}

/// The mounts of one device in a table as of `mountinfo`.
fn mounts_of(table: &[u8], device: u64) -> Vec<Mounted> {
    let wanted = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let mut mounts: Vec<Mounted> = Vec::new();
    let mut others: Vec<(u64, PathBuf)> = Vec::new();
    for line in table.split(|byte| *byte == b'\n') {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').take(5).collect();
        let [id, parent, number, root, path] = fields[..] else { continue };
        let count = |field: &[u8]| std::str::from_utf8(field).ok()?.parse::<u64>().ok();
        let (Some(id), Some(parent)) = (count(id), count(parent)) else { continue };
        let path = unescaped(path);
        others.push((parent, path.clone()));
        if number == wanted.as_bytes() {
            mounts.push(Mounted { id, path, root: unescaped(root), inner: Vec::new() });
        }
    }
    for mount in &mut mounts {
        let inner = others.iter().filter(|(parent, _)| *parent == mount.id);
        mount.inner = inner.map(|(_, path)| path.clone()).collect();
    }
    mounts
}

/// Blanks, newlines and backslashes are written as octal numbers there.
fn unescaped(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).filter(|_| *first == b'\\');
        let number = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match number {
            Some(number) => {
                bytes.push(number);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Finds a mount for each place: by its path, or, where the container renamed a directory above, by what it shows.
fn assign(
    mut mounts: Vec<Mounted>,
    paths: &[PathBuf],
    places: &[VolumePlace],
) -> Result<Vec<Mounted>, VolumeError> {
    let mut found: Vec<Option<Mounted>> = vec![None; places.len()];
    for (slot, path) in found.iter_mut().zip(paths) {
        // The uppermost of several at one path is the last in the table.
        *slot = mounts.iter().rposition(|mount| mount.path == *path).map(|at| mounts.remove(at));
    }
    for (slot, place) in found.iter_mut().zip(places).filter(|(slot, _)| slot.is_none()) {
        let shows = |mount: &Mounted| mount.root.strip_prefix("/").is_ok_and(|root| root == place.sub_path);
        *slot = mounts.iter().rposition(shows).map(|at| mounts.remove(at));
    }
    let named = found.into_iter().zip(places).map(|(mount, place)| {
        let gone = io::Error::other("the Volume is not mounted there any more");
        mount.ok_or_else(|| inside("find the mount at", &place.path)(gone))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"1 0 8:1 / / rw - ext4 /dev/sda rw\n\
        20 1 0:55 / /vol rw,nodev - overlay homeport rw\n\
        21 1 0:55 /sub /else\\040where rw - overlay homeport rw\n\
        22 1 0:56 / /other rw - overlay homeport rw\n";

    fn place(path: &str, sub_path: &str) -> VolumePlace {
        VolumePlace { path: path.into(), sub_path: sub_path.into(), read_only: false }
    }

    fn located(places: &[VolumePlace]) -> Result<Vec<(u64, PathBuf)>, VolumeError> {
        let paths: Vec<PathBuf> = places.iter().map(|place| place.path.clone()).collect();
        let found = assign(mounts_of(TABLE, rustix::fs::makedev(0, 55)), &paths, places)?;
        Ok(found.into_iter().map(|mount| (mount.id, mount.path)).collect())
    }

    #[test]
    fn places_are_found_by_path_and_else_by_what_they_show() {
        let at = |id, path: &str| (id, PathBuf::from(path));
        let both = [place("/else where", "sub"), place("/vol", "")];
        assert_eq!(located(&both).unwrap(), [at(21, "/else where"), at(20, "/vol")]);
        let renamed = [place("/vol", ""), place("/was/here", "sub")];
        assert_eq!(located(&renamed).unwrap(), [at(20, "/vol"), at(21, "/else where")]);
    }

    #[test]
    fn a_place_that_is_gone_is_named() {
        let error = located(&[place("/vol", ""), place("/gone", "not/there")]).unwrap_err();
        assert!(error.to_string().contains("`/gone`"), "{error}");
    }
}
