//! Volumes mounted for a benchmark, as they are in a container that is this thread's namespace.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use homeport_content::{Stack, Tree};
use homeport_fs::{
    BackendChoice, Freezer, Inside, SnapshotFs, TakeKind, VolumeMount, VolumePlace, VolumeRequest,
};
use homeport_store::Store;

use crate::BenchError;
use crate::error::io_error;

/// A store with Volumes.
pub(super) struct Place {
    dir: PathBuf,
    store: Arc<Store>,
    fs: Arc<SnapshotFs>,
}

/// A mounted Volume.
pub(super) struct Mounted {
    volume: VolumeMount,
    path: PathBuf,
    namespace: File,
    seen: Stack,
}

impl Place {
    pub(super) fn open(dir: &Path) -> Result<Place, BenchError> {
        let store = Arc::new(Store::open(&dir.join("store"))?);
        let fs = SnapshotFs::open(Arc::clone(&store), &dir.join("fs"), BackendChoice::Auto)?;
        Ok(Place { dir: dir.to_owned(), store, fs: Arc::new(fs) })
    }

    pub(super) fn empty(&self) -> Result<Stack, BenchError> {
        Ok(Stack::of(self.store.put_tree(&Tree::default())?))
    }

    pub(super) fn sync(&self) -> Result<(), BenchError> {
        Ok(self.store.sync()?)
    }

    /// Mounts a version, writable.
    pub(super) fn mount(&self, key: &str, stack: &Stack) -> Result<Mounted, BenchError> {
        let (staging, path) = (self.dir.join(format!("staging-{key}")), self.dir.join(format!("at-{key}")));
        for directory in [&staging, &path] {
            fs::create_dir_all(directory).map_err(io_error("make the directory", directory))?;
        }
        let place = VolumePlace { path: path.clone(), sub_path: PathBuf::new(), read_only: false };
        let volume = self.fs.open_volume(VolumeRequest {
            key,
            stack,
            id_map: None,
            places: &[place],
            early_copies: &[],
            quota_bytes: 0,
            staging: &staging,
        })?;
        for (source, target, _) in volume.binds() {
            let bound = rustix::mount::mount_bind(&source, &target)
                .and_then(|()| rustix::mount::unmount(&source, rustix::mount::UnmountFlags::DETACH));
            bound.map_err(io_error("mount a Volume at", &target))?;
        }
        let own = Path::new("/proc/thread-self/ns/mnt");
        let namespace = File::open(own).map_err(io_error("open", own))?;
        Ok(Mounted { volume, path, namespace, seen: stack.clone() })
    }
}

impl Mounted {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Commits what was changed, while the Volume stays mounted; the version that has it.
    pub(super) fn take(&mut self) -> Result<Stack, BenchError> {
        let inside =
            Inside { mount_namespace: self.namespace.as_fd(), processes: &Vec::new, freezer: &NothingRuns };
        let taken = self.volume.take(Some(inside), TakeKind::Asked)?;
        self.seen = taken.delta.map_or(taken.seen.clone(), |delta| taken.seen.with(delta));
        Ok(self.seen.clone())
    }

    /// Shows another version in place.
    pub(super) fn show(&mut self, stack: &Stack) -> Result<(), BenchError> {
        let inside =
            Inside { mount_namespace: self.namespace.as_fd(), processes: &Vec::new, freezer: &NothingRuns };
        self.volume.show(inside, stack, false).map_err(BenchError::Show)
    }

    pub(super) fn end(self) -> Result<(), BenchError> {
        let detach = rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::NOFOLLOW;
        rustix::mount::unmount(&self.path, detach).map_err(io_error("unmount", &self.path))?;
        Ok(self.volume.forget()?)
    }
}

/// There is no process in the container but this one, which does one thing at a time.
struct NothingRuns;

impl Freezer for NothingRuns {
    fn freeze(&self) -> io::Result<()> {
        Ok(())
    }

    fn thaw(&self) -> io::Result<()> {
        Ok(())
    }
}
