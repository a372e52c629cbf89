//! Layers that are only read: snapshots and deltas, made mountable once and mounted once for all who use them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, Weak};

use homeport_content::{Delta, DeltaId, SnapshotId, Stack};
use homeport_store::Root;

use crate::error::{FsError, io_error};
use crate::kernel::LayerMount;
use crate::{Backend, SnapshotFs, erofs, kernel, linked};

/// What a lower layer of a mount is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lower {
    /// A whole tree.
    Snapshot(SnapshotId),
    /// Changes of the layers below it.
    Delta(DeltaId),
}

impl Lower {
    /// The layers of a version, uppermost first.
    ///
    /// A delta that occurs twice stands at its uppermost place only: what it says there, it need not say further down.
    /// The kernel refuses to have one layer twice.
    pub fn of_stack(stack: &Stack) -> Vec<Lower> {
        let mut lowers = Vec::with_capacity(stack.deltas.len() + 1);
        for delta in stack.deltas.iter().rev().map(|delta| Lower::Delta(*delta)) {
            if !lowers.contains(&delta) {
                lowers.push(delta);
            }
        }
        lowers.push(Lower::Snapshot(stack.base));
        lowers
    }
}

impl SnapshotFs {
    /// Makes a snapshot mountable, which its first mount would do: writes its EROFS image, or
    /// its tree of links. Returns where that is.
    pub fn prepare(&self, id: &SnapshotId) -> Result<PathBuf, FsError> {
        self.prepare_lower(Lower::Snapshot(*id))
    }

    /// Makes a layer mountable. Returns where that is.
    pub fn prepare_lower(&self, lower: Lower) -> Result<PathBuf, FsError> {
        // Digests of different encodings, so snapshots and deltas cannot have one name.
        let (Lower::Snapshot(id) | Lower::Delta(id)) = lower;
        let place = match self.backend {
            Backend::Erofs => self.dir.join("erofs").join(id.to_hex()),
            Backend::Linked => self.dir.join("linked/trees").join(id.to_hex()),
        };
        if place.exists() {
            return Ok(place);
        }
        // A delta is small, and a container may be waiting for it that was stopped: it does not wait for an image.
        let small = self.backend == Backend::Erofs && matches!(lower, Lower::Delta(_));
        let _one_at_a_time = (!small).then(|| self.preparing.lock().unwrap_or_else(PoisonError::into_inner));
        if !place.exists() {
            self.make_mountable(lower, &place)?;
        }
        Ok(place)
    }

    fn make_mountable(&self, lower: Lower, place: &Path) -> Result<(), FsError> {
        let (scratch, dir) = (self.dir.join("scratch"), self.dir.join("linked"));
        match (self.backend, lower) {
            (Backend::Erofs, Lower::Snapshot(id)) => {
                let image = erofs::image_of(&id, &*self.store.tree(&id)?)?;
                erofs::write_image(place, &scratch, &image)
            }
            (Backend::Erofs, Lower::Delta(id)) => {
                let image = erofs::image_of_delta(&id, &*self.store.delta(&id)?)?;
                erofs::write_image(place, &scratch, &image)
            }
            (Backend::Linked, Lower::Snapshot(id)) => {
                linked::write_tree(place, &dir, &self.store, &*self.store.tree(&id)?)
            }
            (Backend::Linked, Lower::Delta(id)) => {
                let tree = crate::whiteout::tree_of(&*self.store.delta(&id)?);
                linked::write_tree(place, &dir, &self.store, &tree)
            }
        }
    }

    /// The mount of one layer, shared by all overlays that use it now, and with it the
    /// kernel's memory of its names and inodes.
    pub(crate) fn layer_mount(&self, lower: Lower) -> Result<Arc<LayerMount>, FsError> {
        if let Some(mount) = self.layer_mounts().get(&lower).and_then(Weak::upgrade) {
            return Ok(mount);
        }
        let pin = self.store.pin([match lower {
            Lower::Snapshot(id) => Root::Tree(id),
            Lower::Delta(id) => Root::Delta(id),
        }]);
        let _not_removed = self.mounting.read().unwrap_or_else(PoisonError::into_inner);
        let path = self.prepare_lower(lower)?;
        SnapshotFs::used_now(&path);
        let fd = match self.backend {
            Backend::Erofs => erofs::mount_image(&path)?,
            Backend::Linked => kernel::bind(&path)?,
        };
        let mount = Arc::new(LayerMount::new(fd, self.places().as_deref())?.pinned(pin));
        let mut known = self.layer_mounts();
        // Another thread was quicker: its mount has the image already, and one image is mounted once.
        if let Some(mount) = known.get(&lower).and_then(Weak::upgrade) {
            return Ok(mount);
        }
        known.retain(|_, mount| mount.strong_count() > 0);
        known.insert(lower, Arc::downgrade(&mount));
        Ok(mount)
    }

    /// A mount of a delta that the store does not have yet. Its image has no name: a container is stopped meanwhile, and
    /// what has a name would have to be synced first.
    pub(crate) fn unpublished_mount(&self, delta: &Delta) -> Result<Arc<LayerMount>, FsError> {
        let scratch = self.dir.join("scratch");
        let image = erofs::image_of_delta(&delta.id(), delta)?;
        let file = tempfile::NamedTempFile::new_in(&scratch).map_err(io_error("make a file in", &scratch))?;
        std::fs::write(file.path(), &image).map_err(io_error("write", file.path()))?;
        Ok(Arc::new(LayerMount::new(erofs::mount_image(file.path())?, self.places().as_deref())?))
    }

    /// Where layers are attached, on kernels that need it.
    pub(crate) fn places(&self) -> Option<PathBuf> {
        let needed = self.interface.needs_attached();
        needed.then(|| self.dir.join("mounts"))
    }
}

#[cfg(test)]
mod tests {
    use homeport_content::Digest;

    use super::*;

    #[test]
    fn the_newest_delta_is_uppermost_and_none_occurs_twice() {
        let [base, one, two] = ["base", "one", "two"].map(|name| Digest::of(name.as_bytes()));
        let stack = Stack { base, deltas: vec![one, two, one] };
        assert_eq!(Lower::of_stack(&stack), [Lower::Delta(one), Lower::Delta(two), Lower::Snapshot(base)]);
    }
}
