//! Mounts of snapshots and layers, from the request to the end.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use homeport_content::SnapshotId;

use crate::error::{FsError, io_error};
use crate::kernel::{self, LayerMount};
use crate::layer::LayerFiles;
use crate::overlay::{Overlay, Writable, open_directory};
use crate::{Backend, IdMap, Lower, SnapshotFs, WritableLayer};

/// Where waiting for the users of a mount ends: the pauses until then add up to a second.
const LONGEST_PAUSE: Duration = Duration::from_millis(1024);

/// What to mount, and where.
#[derive(Debug)]
pub struct MountRequest<'a> {
    /// Snapshots, uppermost first: entries of the first hide those of the others. The last is
    /// the image.
    pub lowers: &'a [SnapshotId],
    /// Where changes go; without it the mount is read-only.
    pub layer: Option<&'a WritableLayer>,
    /// An existing directory.
    pub target: &'a Path,
    /// Ids as seen by a container with its own user namespace.
    pub id_map: Option<&'a IdMap>,
}

/// A mounted tree. Dropping it unmounts, lazily if it is still in use.
#[derive(Debug)]
pub struct Mount {
    target: PathBuf,
    layer: Option<Arc<LayerFiles>>,
    /// Keeps the layers in the cache of mounts, for others that want the same.
    _lowers: Vec<Arc<LayerMount>>,
    attached: bool,
}

impl Mount {
    /// Where the tree is.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Takes the mount away. If some process still uses it after a second, that is an error, the
    /// tree is detached for others, and its layer can no longer be committed. Blocks that long.
    pub fn unmount(mut self) -> Result<(), FsError> {
        match self.detach_patiently() {
            Ok(()) => {
                self.attached = false;
                if let Some(layer) = &self.layer {
                    layer.end_mount();
                }
                Ok(())
            }
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                Err(FsError::Busy { target: self.target.clone() })
            }
            Err(error) => Err(io_error("unmount", &self.target)(error)),
        }
    }

    /// A process that was started by another thread holds every descriptor of this one until it
    /// has executed its program, so a mount can be in use for a moment after its last user.
    fn detach_patiently(&self) -> std::io::Result<()> {
        let mut pause = Duration::from_millis(1);
        loop {
            match kernel::detach(&self.target) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && pause < LONGEST_PAUSE => {
                    std::thread::sleep(pause);
                    pause *= 2;
                }
                result => return result,
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if !self.attached {
            return;
        }
        match kernel::detach(&self.target) {
            Ok(()) => {
                if let Some(layer) = &self.layer {
                    layer.end_mount();
                }
            }
            Err(_) => {
                if let Err(error) = kernel::detach_lazily(&self.target) {
                    let target = self.target.display();
                    tracing::error!(%error, %target, "a snapshot stays mounted");
                }
            }
        }
    }
}

impl SnapshotFs {
    /// Mounts snapshots, one over the other, with the layer above them.
    pub fn mount(&self, request: MountRequest<'_>) -> Result<Mount, FsError> {
        let Some(image) = request.lowers.last() else {
            return Err(FsError::NoSnapshots(request.target.to_owned()));
        };
        let mut seen = HashSet::new();
        let mut lowers = Vec::new();
        for id in request.lowers.iter().filter(|id| seen.insert(**id)) {
            lowers.push(self.layer_mount(Lower::Snapshot(*id))?);
        }
        let target = request.target.display().to_string();
        let mapped = self.id_mapped(&lowers, request.id_map, &target)?;
        let layer = request.layer.map(|layer| &layer.shared);
        if let Some(layer) = layer {
            let root = &self.store.tree(image)?.root.metadata;
            layer.begin_mount(request.lowers, root, request.id_map)?;
        }
        let used: Vec<&LayerMount> = if mapped.is_empty() {
            lowers.iter().map(Arc::as_ref).collect()
        } else {
            mapped.iter().collect()
        };
        let paths = layer.map(|layer| (layer.upper(), layer.work()));
        let writable = paths.as_ref().map(|(upper, work)| Writable { upper, work, lasting: None });
        let mounted = self
            .overlay(&used, None, writable, &target)
            .and_then(|mount| kernel::attach(mount.as_fd(), request.target));
        if let Err(error) = mounted {
            if let Some(layer) = layer {
                layer.end_mount();
            }
            return Err(error);
        }
        Ok(Mount {
            target: request.target.to_owned(),
            layer: layer.cloned(),
            _lowers: lowers,
            attached: true,
        })
    }

    /// The overlay of these layers, attached nowhere; `target` is for messages.
    ///
    /// Contents are looked up in the store, then in `data`, if that is given.
    pub(crate) fn overlay(
        &self,
        lowers: &[&LayerMount],
        data: Option<&Path>,
        writable: Option<Writable<'_>>,
        target: &str,
    ) -> Result<OwnedFd, FsError> {
        let mut opened = Vec::new();
        let mut lowers: Vec<_> = lowers.iter().map(|lower| lower.fd()).collect();
        let empty;
        match self.backend {
            Backend::Erofs => {
                for directory in [Some(&*self.store.objects_dir()), data].into_iter().flatten() {
                    opened.push(open_directory(directory)?);
                }
            }
            Backend::Linked => {
                // Without an upper directory the kernel wants two layers at least.
                empty = open_directory(&self.empty_dir())?;
                lowers.push(empty.as_fd());
            }
        }
        Overlay { lowers, data: opened.iter().map(AsFd::as_fd).collect(), writable }
            .mount(self.interface, target)
    }

    /// Copies of the layers with mapped ids; none without a map.
    pub(crate) fn id_mapped(
        &self,
        lowers: &[Arc<LayerMount>],
        id_map: Option<&IdMap>,
        target: &str,
    ) -> Result<Vec<LayerMount>, FsError> {
        let mut mapped = Vec::new();
        if let Some(map) = id_map {
            for lower in lowers {
                let copy = kernel::id_mapped(lower.fd(), map.userns.as_fd(), target)?;
                mapped.push(LayerMount::new(copy, self.places().as_deref())?);
            }
        }
        Ok(mapped)
    }
}
