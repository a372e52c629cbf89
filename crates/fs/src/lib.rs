//! The kernel's side of snapshots: mounting trees, and committing what was changed through a
//! mount.
//!
//! A mount is one overlay: a writable layer (where there is one) over one lower layer for each
//! snapshot, over the store's object directory. See [`Backend`] for the two forms of lower
//! layers. Ids are mapped on the lower layers, never on the overlay, which cannot be id-mapped.
//!
//! Invariants:
//! - A layer belongs to the snapshots that it was first mounted over; with others it is refused.
//! - A commit takes a layer's files, and only of a layer that nobody uses any more.
//! - Snapshots, and with them mounts without a layer, never change.
//!
//! A Volume ([`VolumeMount`]) is taken from and shown anew while its container runs.
//!
//! Absent: lazily fetched contents.

mod collect;
mod commit;
mod erofs;
mod error;
mod idmap;
mod kernel;
mod layer;
mod linked;
mod lower;
mod mount;
mod overlay;
mod probe;
mod redirects;
mod removal;
mod reserve;
mod shared;
mod volume;
mod whiteout;

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};

pub use collect::{CachedImage, Forgotten};
pub use commit::CommitRequest;
pub use error::FsError;
pub use idmap::IdMap;
pub use layer::WritableLayer;
pub use lower::Lower;
pub use mount::{Mount, MountRequest};
pub use probe::{Capabilities, Capability, probe};
pub use redirects::{raise_redirect_limit, redirect_limit};
pub use shared::SharedDirectory;
pub use volume::{
    Freezer, Inside, LeftVolume, ShowError, TakeKind, Taken, VolumeError, VolumeMount, VolumePlace,
    VolumeRequest,
};

use error::io_error;
use homeport_store::Store;
use kernel::LayerMount;
use overlay::LayerInterface;
use reserve::Reserve;
use rustix::fs::FlockOperation;

static NEXT_REMOVED: AtomicU64 = AtomicU64::new(0);

/// How snapshots become lower layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// EROFS metadata images, with contents redirected into the object directory. Needs Linux
    /// 6.12 (EROFS from files); 6.5 for the data-only layer.
    Erofs,
    /// Directory trees of hard links. Works on every kernel with overlays, but preparing a
    /// snapshot takes a link for each file, and link counts show more names than there are.
    Linked,
}

/// Which backend to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BackendChoice {
    /// EROFS where a real mount of it succeeds, else links.
    #[default]
    Auto,
    /// EROFS or an error.
    Erofs,
    /// Links.
    Linked,
}

/// Mounts and commits snapshots of one store. Share it as `Arc<SnapshotFs>`.
#[derive(Debug)]
pub struct SnapshotFs {
    store: Arc<Store>,
    dir: PathBuf,
    backend: Backend,
    interface: LayerInterface,
    mounts: Mutex<HashMap<Lower, Weak<LayerMount>>>,
    /// Held while a snapshot is made mountable, so that it is done once.
    preparing: Mutex<()>,
    /// Shared while a layer is made mountable and mounted; alone while one is removed.
    mounting: RwLock<()>,
    /// No other process had the directory open when this one opened it.
    alone: bool,
    /// Whether copies cost nothing here.
    shares_blocks: OnceLock<bool>,
    empty: OnceLock<LayerMount>,
    /// Space for the time when the disk is full. Made with the first layer of a Volume.
    reserve: OnceLock<Arc<Reserve>>,
    _lock: File,
}

impl SnapshotFs {
    /// Opens the directory of mountable snapshots and layers, which is made if it is missing.
    /// It should be on the file system of the store: commits move files from one to the other.
    ///
    /// Layers that an earlier process left are removed, unless another process has the directory
    /// open now. Needs the rights to mount.
    pub fn open(store: Arc<Store>, dir: &Path, choice: BackendChoice) -> Result<SnapshotFs, FsError> {
        // Paths of the layers are read by the kernel, whatever the working directory is by then.
        let dir = std::path::absolute(dir).map_err(io_error("find", dir))?;
        for part in ["erofs", "layers", "linked", "scratch", "volumes", removal::DIRECTORY] {
            let path = dir.join(part);
            fs::create_dir_all(&path).map_err(io_error("make the directory", &path))?;
        }
        let lock_path = dir.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(io_error("open", &lock_path))?;
        let alone = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        if alone {
            linked::open(&dir.join("linked"))?;
            let left = ["layers", "scratch", "linked/scratch"].map(|part| dir.join(part));
            removal::remove_leftovers(&dir.join(removal::DIRECTORY), &left)?;
        }
        rustix::fs::flock(&lock, FlockOperation::LockShared).map_err(io_error("lock", &lock_path))?;
        let (backend, interface) = probe::choose(&dir, choice)?;
        tracing::debug!(?backend, ?interface, "snapshots can be mounted");
        Ok(SnapshotFs {
            store,
            dir,
            backend,
            interface,
            mounts: Mutex::default(),
            preparing: Mutex::default(),
            mounting: RwLock::default(),
            alone,
            shares_blocks: OnceLock::new(),
            empty: OnceLock::new(),
            reserve: OnceLock::new(),
            _lock: lock,
        })
    }

    /// The backend in use.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The store that the snapshots are in.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Makes an empty layer. The name is for people who look at the directory; two layers may
    /// have the same.
    pub fn new_layer(&self, name: &str) -> Result<WritableLayer, FsError> {
        WritableLayer::create(&self.dir.join("layers"), name)
    }

    fn layer_mounts(&self) -> MutexGuard<'_, HashMap<Lower, Weak<LayerMount>>> {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reserve(&self) -> &Reserve {
        self.reserve.get_or_init(|| Reserve::looked_after(&self.dir))
    }

    /// Whether files of the layers and of the store can share blocks.
    fn shares_blocks(&self) -> bool {
        *self.shares_blocks.get_or_init(|| probe::shares_blocks(&self.dir.join("scratch")))
    }

    /// Removes a directory, of which this thread does not see the end.
    fn remove_aside(&self, path: &Path) {
        let number = NEXT_REMOVED.fetch_add(1, Ordering::Relaxed);
        let aside = self.dir.join("scratch").join(format!("removed-{}-{number}", std::process::id()));
        if let Err(error) = fs::rename(path, &aside) {
            tracing::warn!(%error, path = %path.display(), "a directory stays on disk for a while");
            return;
        }
        drop_aside(Removal(aside));
    }

    /// An empty directory as a layer.
    fn empty_layer(&self) -> Result<&LayerMount, FsError> {
        if let Some(layer) = self.empty.get() {
            return Ok(layer);
        }
        let layer = LayerMount::new(kernel::bind(&self.empty_dir())?, self.places().as_deref())?;
        Ok(self.empty.get_or_init(|| layer))
    }

    fn empty_dir(&self) -> PathBuf {
        self.dir.join("linked/empty")
    }
}

/// A directory that goes with the value.
struct Removal(PathBuf);

impl Drop for Removal {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "a directory stays until the next start");
        }
    }
}

/// Drops something that takes time to go: a large directory, or the last mount of a writable overlay, with which the
/// kernel syncs the whole file system.
fn drop_aside<T: Send + 'static>(gone: T) {
    // Without a thread the closure is dropped here, and what it holds with it.
    let _ = std::thread::Builder::new().name("removal".into()).spawn(move || drop(gone));
}
