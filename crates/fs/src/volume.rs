//! Volumes in containers: one writable overlay over the layers of a version, seen at one or more places.
//!
//! A [`VolumeMount`] lives as long as its container. What the container changed is *taken* as a delta, and another
//! version is *shown* in place of the one that it sees, both while the container runs. Files are adopted by the store
//! without a copy when nobody uses the mount; else they stay, and their content is copied.
//!
//! Invariants:
//! - An upper directory belongs to the layers that it was first mounted over. Another version gets a fresh one.
//! - What was not yet acknowledged is on disk below `volumes/`, and can be taken by a later process.
//! - A place is never empty: a new mount comes beneath the old one, which then goes.
//!
//! The order in which a layer gives its files to the store, so that neither a failure nor a crash at any point harms
//! what the container sees or what a later process finds:
//! 1. The scan reads the upper directory against the layers that it was *mounted over* and gives a delta of all that is
//!    in it. Nothing is moved or altered. What was taken from the same upper before is subtracted afterwards.
//! 2. While the mount is used, new content is copied into the store, and the upper stays.
//! 3. Else each file with new content gets one more name, its digest, in the layer's own directory `data`; the delta is
//!    written beside it; and the container is shown a fresh upper over the delta's image, with `data` beside the
//!    store's objects as a place of content. From here on nobody writes to the old upper, and the container may run.
//! 4. Then the store takes the files by their second names, which strips them of metadata, and the old upper goes.
//!    A later process finds `data` and the delta, and does the same.

mod assembly;
mod disk;
mod early;
mod error;
mod frozen;
mod giving;
mod layer;
mod left;
mod namespace;
mod open;
mod open_files;
mod quiet;
mod record;
pub(crate) mod scan;
mod show;
mod take;
mod upper;

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use homeport_content::{DeltaId, Digest, Stack};

pub use error::{ShowError, VolumeError};

use crate::{IdMap, SnapshotFs};
use assembly::{Attached, Mapped};
use early::EarlyCopies;
use layer::Layer;
use open::{Retired, Shown};
use scan::Known;

/// A Volume to be opened for a container.
#[derive(Debug)]
pub struct VolumeRequest<'a> {
    /// Names the writable layer on disk; not used by another mount that is not forgotten. Letters, digits, `.`, `_`
    /// and `-`.
    pub key: &'a str,
    /// The layers of the version that is seen at first.
    pub stack: &'a Stack,
    /// Ids as seen by a container with its own user namespace.
    pub id_map: Option<&'a IdMap>,
    /// Where the container sees it.
    pub places: &'a [VolumePlace],
    /// Patterns of file names (`*.mdb`), or of paths where they have a slash, that are copied into the writable layer
    /// at once: readers that map such a file before its first write then see that write.
    pub early_copies: &'a [String],
    /// Bytes that the Volume's files may have together; 0 means no limit but the disk.
    pub quota_bytes: u64,
    /// An existing empty directory of this container, for the sources of binds.
    pub staging: &'a Path,
}

/// One place at which a container sees a Volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumePlace {
    /// Absolute path in the container.
    pub path: PathBuf,
    /// A directory of the Volume that is seen in place of its root; empty for the root. Made if it is missing, unless
    /// the place is read-only.
    pub sub_path: PathBuf,
    /// Whether the container can only read here.
    pub read_only: bool,
}

/// Stops the processes of a container for a moment.
pub trait Freezer: Send + Sync {
    /// Returns when no process of the container runs.
    fn freeze(&self) -> std::io::Result<()>;
    /// Lets them run again.
    fn thaw(&self) -> std::io::Result<()>;
}

/// The running container that a Volume is mounted in.
#[derive(Clone, Copy)]
pub struct Inside<'a> {
    /// Its mount namespace.
    pub mount_namespace: BorrowedFd<'a>,
    /// Ids of its processes, as this process sees them.
    pub processes: &'a (dyn Fn() -> Vec<u32> + Sync),
    /// Stops it.
    pub freezer: &'a dyn Freezer,
}

/// Why changes are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeKind {
    /// The container asked for it, and waits.
    Asked,
    /// Some time has passed.
    Background,
    /// The container has ended.
    Ended,
}

/// What was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The changes, in the store; `None` if there are none.
    pub delta: Option<DeltaId>,
    /// The layers that the changes are relative to: the version shown last, and what was taken since.
    pub seen: Stack,
    /// Whether the container now writes to a fresh layer, so that another version can be shown.
    pub clean: bool,
}

/// A Volume of one container. Dropping it takes its mounts away from this process, but leaves the layer on disk; see
/// [`VolumeMount::forget`].
#[derive(Debug)]
pub struct VolumeMount {
    fs: Arc<SnapshotFs>,
    key: String,
    id_map: Option<Arc<IdMap>>,
    places: Vec<VolumePlace>,
    staging: PathBuf,
    /// Sources of binds, until the container has them.
    staged: Vec<Attached>,
    early: EarlyCopies,
    quota: u64,
    mapped: Mapped,
    shown: Shown,
    /// `None` if all places are read-only.
    layer: Option<Layer>,
    /// What is known of the files in the upper directory.
    known: Known,
    /// How the upper directory was when all of it was taken and nobody wrote, and whether that left a fresh layer.
    quiet: Option<(Digest, bool)>,
    retired: Vec<Retired>,
}

/// The layer of a Volume that an earlier process left.
#[derive(Debug)]
pub struct LeftVolume {
    /// As it was opened with.
    pub key: String,
    /// What was noted last; empty if nothing was.
    pub note: String,
    fs: Arc<SnapshotFs>,
    layer: Layer,
    id_map: Option<Arc<IdMap>>,
}
