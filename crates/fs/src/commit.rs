//! From a layer to a snapshot.
//!
//! The upper directory is read as the kernel wrote it: whiteouts, opaque and renamed directories,
//! files of which only the metadata was copied up. New contents are moved, not copied, into the
//! store; the scan moves them aside one by one, then threads hash them.

mod scan;
pub(crate) mod upper;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use homeport_content::{FileContent, LeafId, LeafKind, SnapshotId, Tree};
use homeport_store::Batch;

pub(crate) use upper::escaped;

use crate::error::{FsError, io_error};
use crate::{IdMap, SnapshotFs, WritableLayer};

/// Threads that hash new files, at most.
const HASHERS: usize = 4;

/// What to commit.
#[derive(Debug)]
pub struct CommitRequest<'a> {
    /// The layer, not mounted any more. Its files are gone afterwards, also after a failure.
    pub layer: &'a WritableLayer,
    /// The snapshots that it was mounted over, uppermost first. The last is the image.
    pub lowers: &'a [SnapshotId],
    /// Paths from the root whose changes, and those below them, are left out.
    pub exclude: &'a [&'a str],
    /// The map that it was mounted with.
    pub id_map: Option<&'a IdMap>,
}

impl SnapshotFs {
    /// Makes a snapshot of the image (the last of `lowers`) with the changes of a layer.
    ///
    /// What only the other snapshots provide does not enter it, unless the layer moved it.
    /// Directories that hold nothing but excluded paths and are not in the image are left out;
    /// where a directory's only changes are excluded ones, its time stays that of the image.
    /// Sockets are dropped. The same image and the same changes give the same snapshot.
    pub fn commit(&self, request: CommitRequest<'_>) -> Result<SnapshotId, FsError> {
        let layer = &request.layer.shared;
        let Some(image_id) = request.lowers.last() else {
            return Err(FsError::NoSnapshots(layer.dir().to_owned()));
        };
        let image = self.store.tree(image_id)?;
        let merged = self.merged(request.lowers)?;
        if !layer.begin_commit(request.lowers, request.id_map)? {
            return Ok(*image_id);
        }
        let taken = layer.dir().join("taken");
        fs::create_dir(&taken).map_err(io_error("make the directory", &taken))?;
        let scanned = scan::scan(scan::Scan {
            layer: layer.dir(),
            upper: &layer.upper(),
            taken: &taken,
            image: &image,
            merged: merged.as_ref().unwrap_or(&image),
            exclude: request.exclude,
            id_map: request.id_map,
        })?;
        let mut tree = scanned.tree;
        let batch = self.store.batch()?;
        let contents = adopt_all(&batch, &taken, &scanned.taken)?;
        for (id, content) in contents {
            if let Some(leaf) = tree.leaves.get_mut(id.0 as usize) {
                leaf.kind = LeafKind::File(content);
            }
        }
        tree.validate().map_err(|source| FsError::InvalidResult { layer: layer.dir().to_owned(), source })?;
        Ok(batch.publish_with_tree(&tree)?)
    }

    /// What the lower layers show together; `None` if that is just the image.
    fn merged(&self, lowers: &[SnapshotId]) -> Result<Option<Tree>, FsError> {
        let mut upwards = lowers.iter().rev();
        let Some(image) = upwards.next() else {
            return Ok(None);
        };
        let mut merged: Option<Tree> = None;
        for id in upwards {
            let mut tree = match merged.take() {
                Some(tree) => tree,
                None => Tree::clone(&*self.store.tree(image)?),
            };
            tree.overlay(&*self.store.tree(id)?);
            merged = Some(tree);
        }
        Ok(merged)
    }
}

/// Files that the scan moved aside: the leaf they belong to, by their number in the directory.
pub(crate) type Taken = Vec<LeafId>;

/// Hashes files in parallel and stages them as objects.
fn adopt_all(batch: &Batch<'_>, dir: &Path, taken: &Taken) -> Result<Vec<(LeafId, FileContent)>, FsError> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(id) = taken.get(number) else {
                return Ok(done);
            };
            let (digest, size) = batch.adopt_file(&dir.join(number.to_string()))?;
            done.push((*id, FileContent::Object { digest, size }));
        }
    };
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let threads = cores.clamp(2, HASHERS).min(taken.len());
    if threads <= 1 {
        return work();
    }
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::with_capacity(taken.len());
        for thread in running {
            match thread.join() {
                Ok(done) => all.extend(done?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(all)
    })
}
