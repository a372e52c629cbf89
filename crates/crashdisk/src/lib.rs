//! A disk that can lose power at any moment, for tests.
//!
//! The disk is a loop device over the only file of a small file system in user space, which writes
//! down every write and every flush in their order. Afterwards any moment can be chosen as the one
//! at which the power went: what was flushed before it is there, and of the writes since the last
//! flush an arbitrary part, in units of a sector.
//!
//! ```text
//! file system under test ── loop device ── FUSE file ── journal ──▶ image of any moment
//! ```
//!
//! The kernel's own means for this (`dm-log-writes`, `dm-flakey`) are not built into many kernels.

mod device;
mod journal;
mod served;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub use device::LoopDevice;
pub use journal::{Event, Journal};

/// Why a disk could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A step of the set-up failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A command failed.
    #[error("`{command}` failed: {output}")]
    Command {
        /// What was run.
        command: String,
        /// What it said.
        output: String,
    },
}

/// A disk whose writes are written down. Dropping it removes the device.
#[derive(Debug)]
pub struct CrashDisk {
    journal: Arc<Mutex<Journal>>,
    // Dropped in this order: the device before the file it is on.
    device: LoopDevice,
    _served: Mounted,
    _session: fuser::BackgroundSession,
    _place: tempfile::TempDir,
}

impl CrashDisk {
    /// Makes an empty disk of this many bytes, kept in memory. Needs root.
    pub fn create(bytes: u64) -> Result<CrashDisk, DiskError> {
        let place = tempfile::tempdir().map_err(failed("make a directory"))?;
        let journal = Arc::new(Mutex::new(Journal::new(bytes)));
        let session = served::serve(Arc::clone(&journal), place.path())?;
        let served = Mounted { path: place.path().to_owned() };
        let device = LoopDevice::attach(&place.path().join(served::FILE_NAME))?;
        Ok(CrashDisk { journal, device, _served: served, _session: session, _place: place })
    }

    /// The block device.
    pub fn device(&self) -> &Path {
        self.device.path()
    }

    /// Writes down that something was promised now: a crash after this must not lose it.
    pub fn note(&self, promise: u64) {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).push(Event::Promise(promise));
    }

    /// What happened until now.
    pub fn journal(&self) -> Journal {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A mounted file system. Dropping it unmounts.
#[derive(Debug)]
pub struct Mounted {
    path: PathBuf,
}

impl Mounted {
    /// Mounts `device`, which has a file system of type `kind`, at an existing directory.
    pub fn mount(device: &Path, kind: &str, path: &Path) -> Result<Mounted, DiskError> {
        rustix::mount::mount(device, path, kind, rustix::mount::MountFlags::empty(), None)
            .map_err(|errno| failed(&format!("mount {} as {kind}", device.display()))(errno.into()))?;
        Ok(Mounted { path: path.to_owned() })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A test that fails may leave something open; then the mount goes with its last user.
        let flags = rustix::mount::UnmountFlags::NOFOLLOW;
        if rustix::mount::unmount(&self.path, flags).is_err() {
            let _ = rustix::mount::unmount(&self.path, flags | rustix::mount::UnmountFlags::DETACH);
        }
    }
}

fn failed(what: &str) -> impl Fn(std::io::Error) -> DiskError {
    let what = what.to_owned();
    move |source| DiskError::Io { what: what.clone(), source }
}
