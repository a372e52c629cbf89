//! One overlay of a Volume's layers, and copies of its mount for the places.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, mkdirat, openat2};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::disk::GenerationDirectory;
use super::{VolumeError, VolumePlace};
use crate::error::io_error;
use crate::kernel::{self, Attributes, LayerMount};
use crate::overlay::{Lasting, Overlay, Writable};
use crate::{Backend, FsError, IdMap, SnapshotFs, drop_aside};

/// What lacks without an index.
const COME_APART: &str = "names of one file come apart when it is changed";

/// What to assemble.
pub(super) struct Plan<'a> {
    /// Uppermost first.
    pub(super) lowers: Vec<Arc<LayerMount>>,
    /// Copies of them with mapped ids, kept for the next assembly.
    pub(super) mapped: &'a Mapped,
    /// Where changes go; `None` if all places are read-only.
    pub(super) writable: Option<&'a GenerationDirectory>,
    /// Contents by digest besides those in the store.
    pub(super) data: Option<&'a Path>,
    pub(super) id_map: Option<&'a IdMap>,
    pub(super) places: &'a [VolumePlace],
    /// An empty directory to attach the overlay at meanwhile.
    pub(super) scratch: &'a Path,
}

/// A mounted overlay.
#[derive(Debug)]
pub(super) struct Assembly {
    /// The number by which the kernel's tables name it.
    pub(super) device: u64,
    /// A mount for each place, attached nowhere.
    pub(super) mounts: Vec<OwnedFd>,
    /// Keeps the layers in the cache of mounts.
    pub(super) lowers: Vec<Arc<LayerMount>>,
    /// Of the upper directory, before anybody could write to it.
    pub(super) root_stamp: Option<(i64, i64)>,
    root: OwnedFd,
    _attached: Option<Attached>,
}

/// Id-mapped copies of layers, which are the same for every overlay of one container.
#[derive(Debug, Default)]
pub(super) struct Mapped {
    copies: Mutex<Vec<(Arc<LayerMount>, Arc<LayerMount>)>>,
}

impl Mapped {
    /// A copy of each layer; without a map they are used themselves. Copies of others are forgotten.
    fn copies(
        &self,
        fs: &SnapshotFs,
        lowers: &[Arc<LayerMount>],
        id_map: Option<&IdMap>,
        target: &str,
    ) -> Result<Vec<Arc<LayerMount>>, VolumeError> {
        let Some(map) = id_map else { return Ok(lowers.to_vec()) };
        let mut known = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        let mut copies = Vec::with_capacity(lowers.len());
        for lower in lowers {
            let found = known.iter().find(|(layer, _)| Arc::ptr_eq(layer, lower));
            let copy = match found {
                Some((_, copy)) => Arc::clone(copy),
                None => {
                    let copy = kernel::id_mapped(lower.fd(), map.userns.as_fd(), target)?;
                    Arc::new(LayerMount::new(copy, fs.places().as_deref())?)
                }
            };
            copies.push(copy);
        }
        let pairs = lowers.iter().cloned().zip(copies.iter().cloned()).collect();
        drop_aside(std::mem::replace(&mut *known, pairs));
        Ok(copies)
    }
}

/// A mount at a directory of this process, until it is dropped.
#[derive(Debug)]
pub(super) struct Attached {
    path: PathBuf,
}

impl Attached {
    pub(super) fn new(mount: BorrowedFd<'_>, path: &Path) -> Result<Attached, FsError> {
        kernel::attach(mount, path)?;
        Ok(Attached { path: path.to_owned() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Err(error) = kernel::detach_lazily(&self.path) {
            tracing::error!(%error, place = %self.path.display(), "a Volume stays mounted");
        }
    }
}

impl SnapshotFs {
    /// Mounts the layers, with a mount for each place.
    pub(super) fn assemble(&self, plan: Plan<'_>) -> Result<Assembly, VolumeError> {
        let target = plan.scratch.display().to_string();
        let mapped = plan.mapped.copies(self, &plan.lowers, plan.id_map, &target)?;
        let used: Vec<&LayerMount> = mapped.iter().map(Arc::as_ref).collect();
        let mount = self.lasting_overlay(&used, plan.data, plan.writable, &target)?;
        // Kernels before 6.15 copy only mounts that are attached.
        let attached = match self.interface.needs_attached() {
            true => Some(Attached::new(mount.as_fd(), plan.scratch)?),
            false => None,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = match &attached {
            Some(attached) => rustix::fs::open(attached.path(), flags, Mode::empty()),
            None => rustix::fs::openat(&mount, ".", flags, Mode::empty()),
        };
        let opened = opened.map_err(io_error("open the mount for", plan.scratch))?;
        let about = rustix::fs::fstat(&opened).map_err(io_error("look at", plan.scratch))?;
        let owner = plan.id_map.map_or(0, |map| map.host_base);
        let mut mounts = Vec::with_capacity(plan.places.len());
        for place in plan.places {
            let shown = directory_for(&opened, place, owner)?;
            mounts.push(mount_for(shown.as_fd(), place)?);
        }
        let root_stamp = plan.writable.map(GenerationDirectory::root_stamp).transpose()?;
        Ok(Assembly {
            device: about.st_dev,
            mounts,
            lowers: plan.lowers,
            root_stamp,
            root: opened,
            _attached: attached,
        })
    }

    /// The overlay, with an index of names where the kernel has it.
    fn lasting_overlay(
        &self,
        lowers: &[&LayerMount],
        data: Option<&Path>,
        writable: Option<&GenerationDirectory>,
        target: &str,
    ) -> Result<OwnedFd, VolumeError> {
        let Some(generation) = writable else {
            return Ok(self.overlay(lowers, data, None, target)?);
        };
        let (upper, work) = (generation.upper(), generation.work());
        let with = |lasting| Some(Writable { upper: &upper, work: &work, lasting: Some(lasting) });
        if self.backend == Backend::Linked {
            // Names in its trees share inodes that are no links of one another: an index would change them together.
            return Ok(self.overlay(lowers, data, with(Lasting::Plain), target)?);
        }
        let first = match self.overlay(lowers, data, with(Lasting::Indexed), target) {
            Ok(mount) => {
                // Some file systems cannot have one, and the kernel then goes on without a word to its caller.
                if !work.join("index").exists() {
                    tracing::warn!(layer = %upper.display(), "a Volume has no index: {COME_APART}");
                }
                return Ok(mount);
            }
            Err(error) => error,
        };
        // Refused because of what the kernel or the file system is; other errors are those of any overlay.
        if first.io().and_then(std::io::Error::raw_os_error) != Some(libc::EINVAL) {
            return Err(first.into());
        }
        match self.overlay(lowers, data, with(Lasting::Plain), target) {
            Ok(mount) => {
                tracing::warn!(error = %first, layer = %upper.display(), "a Volume has no index: {COME_APART}");
                Ok(mount)
            }
            Err(_) => Err(first.into()),
        }
    }

    /// Whether some mount still writes to the upper directory: the kernel then refuses another one. It is of no use
    /// for mounts afterwards.
    pub(super) fn is_in_use(&self, generation: &GenerationDirectory) -> Result<bool, VolumeError> {
        let (upper, work) = (generation.upper(), generation.work());
        let writable = Writable { upper: &upper, work: &work, lasting: Some(Lasting::Asked) };
        let lowers = vec![self.empty_layer()?.fd()];
        let overlay = Overlay { lowers, data: Vec::new(), writable: Some(writable) };
        match overlay.mount(self.interface, &upper.display().to_string()) {
            Ok(_unused) => Ok(false),
            // Other layers than those that it was mounted over are refused as well, but not so early.
            Err(error) => Ok(error.io().and_then(std::io::Error::raw_os_error) == Some(libc::EBUSY)),
        }
    }
}

impl Assembly {
    /// The root of the Volume, for this process.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// Opens the directory that a place shows; makes it where it is missing and the place is writable. Links in the Volume
/// lead to places in the Volume.
fn directory_for(root: &OwnedFd, place: &VolumePlace, owner: u32) -> Result<OwnedFd, VolumeError> {
    let refused = |reason: String| VolumeError::SubPath { path: place.sub_path.clone(), reason };
    let mut reached = PathBuf::new();
    let mut opened = root.try_clone().map_err(|error| refused(error.to_string()))?;
    for part in place.sub_path.components() {
        let name = match part {
            Component::Normal(name) => name,
            Component::RootDir | Component::CurDir => continue,
            Component::ParentDir | Component::Prefix(_) => return Err(refused("it has a `..`".into())),
        };
        reached.push(name);
        let next = match open_below(root, &reached) {
            Err(Errno::NOENT) if !place.read_only => {
                make_directory(&opened, name, owner).map_err(|errno| refused(errno.to_string()))?;
                open_below(root, &reached)
            }
            result => result,
        };
        opened = next.map_err(|errno| {
            refused(match errno {
                Errno::NOENT => "it does not exist, and the mount is read-only".into(),
                Errno::NOTDIR => "it is not a directory".into(),
                other => std::io::Error::from(other).to_string(),
            })
        })?;
    }
    Ok(opened)
}

fn open_below(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

fn make_directory(parent: &OwnedFd, name: &OsStr, owner: u32) -> Result<(), Errno> {
    mkdirat(parent, name.as_bytes(), Mode::from_raw_mode(0o755))?;
    let (uid, gid) = (Uid::from_raw(owner), Gid::from_raw(owner));
    chownat(parent, name.as_bytes(), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

/// A mount of the directory, attached nowhere.
fn mount_for(shown: BorrowedFd<'_>, place: &VolumePlace) -> Result<OwnedFd, VolumeError> {
    let failed = io_error("copy the mount for", &place.path);
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let set = libc::MOUNT_ATTR_NODEV | if place.read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
    let mount = open_tree(shown, "", flags).map_err(std::io::Error::from).and_then(|mount| {
        let wanted = Attributes { set, ..Attributes::default() };
        kernel::set_attributes(mount.as_fd(), c"", wanted)?;
        Ok(mount)
    });
    Ok(mount.map_err(failed)?)
}

/// Makes a directory that is there only while it is a mount point.
pub(super) fn mount_point(path: &Path) -> Result<(), VolumeError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        result => Ok(result.map_err(io_error("make the directory", path))?),
    }
}
