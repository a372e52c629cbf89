//! Writable layers, and who may use them when.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use homeport_content::{Metadata, SnapshotId};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, lsetxattr, utimensat};

use crate::IdMap;
use crate::error::{FsError, io_error};

/// The changes that are made through a mount: a directory for what is new (`upper`) and one for
/// the kernel's own use (`work`).
///
/// It belongs to the snapshots and the id map it is first mounted with. A layer does not survive
/// its process; its files are removed when the layer and its mounts are gone.
#[derive(Debug)]
pub struct WritableLayer {
    pub(crate) shared: Arc<LayerFiles>,
}

#[derive(Debug)]
pub(crate) struct LayerFiles {
    dir: PathBuf,
    state: Mutex<LayerState>,
}

#[derive(Debug, Default)]
struct LayerState {
    owner: Option<LayerOwner>,
    usage: Usage,
}

#[derive(Debug, PartialEq, Eq)]
struct LayerOwner {
    lowers: Vec<SnapshotId>,
    host_base: Option<u32>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Usage {
    #[default]
    Idle,
    /// Mounted, or unmounted while some process still used it.
    Mounted,
    /// Committed, or being committed.
    Spent,
}

impl WritableLayer {
    pub(crate) fn create(layers: &Path, name: &str) -> Result<WritableLayer, FsError> {
        let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || name.len() > 100 || !name.bytes().all(usual) {
            return Err(FsError::LayerName(name.to_owned()));
        }
        let dir = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .tempdir_in(layers)
            .map_err(io_error("make a directory in", layers))?
            .keep();
        let layer = WritableLayer { shared: Arc::new(LayerFiles { dir, state: Mutex::default() }) };
        make_directories(&layer.shared.dir)?;
        Ok(layer)
    }

    /// The directory of the layer.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Removes the layer's files. Fails while it is mounted.
    pub fn discard(self) -> Result<(), FsError> {
        if self.shared.state().usage == Usage::Mounted {
            return Err(FsError::LayerMounted(self.shared.dir.clone()));
        }
        self.shared.remove()
    }
}

impl LayerFiles {
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn upper(&self) -> PathBuf {
        self.dir.join("upper")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    fn state(&self) -> std::sync::MutexGuard<'_, LayerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims the layer for a mount over these snapshots; `root` is the metadata of the lowest.
    pub(crate) fn begin_mount(
        &self,
        lowers: &[SnapshotId],
        root: &Metadata,
        id_map: Option<&IdMap>,
    ) -> Result<(), FsError> {
        let mut state = self.state();
        self.check(&state, lowers, id_map)?;
        if state.owner.is_none() {
            prepare_root(&self.upper(), &self.work(), root, id_map)?;
            state.owner = Some(LayerOwner::new(lowers, id_map));
        }
        // A volatile mount leaves this mark, and refuses to start where it finds it. Nobody but
        // this process could have written here since, and it did not crash.
        let mark = self.work().join("work/incompat");
        match fs::remove_dir_all(&mark) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error("remove", &mark)(error));
            }
            _ => {}
        }
        state.usage = Usage::Mounted;
        Ok(())
    }

    /// The mount is gone and nobody uses it any more.
    pub(crate) fn end_mount(&self) {
        self.state().usage = Usage::Idle;
    }

    /// Claims the layer for its commit; says whether it was ever mounted.
    pub(crate) fn begin_commit(
        &self,
        lowers: &[SnapshotId],
        id_map: Option<&IdMap>,
    ) -> Result<bool, FsError> {
        let mut state = self.state();
        self.check(&state, lowers, id_map)?;
        state.usage = Usage::Spent;
        Ok(state.owner.is_some())
    }

    fn check(
        &self,
        state: &LayerState,
        lowers: &[SnapshotId],
        id_map: Option<&IdMap>,
    ) -> Result<(), FsError> {
        match state.usage {
            Usage::Mounted => return Err(FsError::LayerMounted(self.dir.clone())),
            Usage::Spent => return Err(FsError::LayerSpent(self.dir.clone())),
            Usage::Idle => {}
        }
        let given = LayerOwner::new(lowers, id_map);
        match &state.owner {
            Some(owner) if *owner != given => Err(FsError::LayerOfOthers(self.dir.clone())),
            _ => Ok(()),
        }
    }

    fn remove(&self) -> Result<(), FsError> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(io_error("remove", &self.dir)(error))
            }
            _ => Ok(()),
        }
    }
}

impl LayerOwner {
    fn new(lowers: &[SnapshotId], id_map: Option<&IdMap>) -> LayerOwner {
        LayerOwner { lowers: lowers.to_vec(), host_base: id_map.map(|map| map.host_base) }
    }
}

impl Drop for LayerFiles {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!(%error, "a layer's files stay until the next start");
        }
    }
}

/// Makes the directories of a layer, below `dir`: `upper` and `work`.
pub(crate) fn make_directories(dir: &Path) -> Result<(), FsError> {
    // The container's root passes through here on its way to `upper`.
    set_mode(dir, 0o711)?;
    for (part, mode) in [("upper", 0o755), ("work", 0o700)] {
        let path = dir.join(part);
        fs::create_dir(&path).map_err(io_error("make the directory", &path))?;
        set_mode(&path, mode)?;
    }
    Ok(())
}

/// The root of an overlay shows what its upper directory is, not what the root of the layers below is.
pub(crate) fn prepare_root(
    upper: &Path,
    work: &Path,
    root: &Metadata,
    id_map: Option<&IdMap>,
) -> Result<(), FsError> {
    let host = |id| id_map.map_or(id, |map| map.to_host(id).unwrap_or(map.host_base));
    chown(upper, Some(host(root.uid)), Some(host(root.gid))).map_err(io_error("chown", upper))?;
    chown(work, Some(host(0)), Some(host(0))).map_err(io_error("chown", work))?;
    set_mode(upper, root.mode)?;
    for (name, value) in &root.xattrs {
        // Attributes of the overlay's own name space are kept in their escaped form.
        let name = crate::commit::escaped(name);
        lsetxattr(upper, &*name, value, XattrFlags::empty())
            .map_err(io_error("set an attribute of", upper))?;
    }
    let time = Timespec { tv_sec: root.mtime.seconds, tv_nsec: root.mtime.nanos.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, upper, &times, AtFlags::empty()).map_err(io_error("set the time of", upper))
}

pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<(), FsError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(io_error("chmod", path))
}
