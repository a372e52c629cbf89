//! From a layer to a snapshot.
//!
//! A scan makes a delta of the upper directory, over all that the mount showed, and that is applied to the image alone.
//! New contents are moved, not copied, into the store.

mod apply;
pub(crate) mod upper;

use std::sync::Arc;

use homeport_content::{Delta, Layered, SnapshotId};

pub(crate) use upper::escaped;

use crate::error::FsError;
use crate::volume::scan::{Contents, Known, Manner, ScanRequest, scan};
use crate::{IdMap, SnapshotFs, WritableLayer};

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
        if !layer.begin_commit(request.lowers, request.id_map)? {
            return Ok(*image_id);
        }
        let mut seen = Layered::of(self.store.tree(image_id)?);
        for id in request.lowers.iter().rev().skip(1) {
            let mut delta = Delta::from_tree(&*self.store.tree(id)?);
            // The root of the mount is that of the image.
            delta.root.metadata = seen.base.root.metadata.clone();
            seen.deltas.push(Arc::new(delta));
        }
        let (batch, known) = (self.store.batch()?, Known::default());
        let contents = Contents::new(&self.store, &batch, Manner::Adopt, &known);
        let scanned = ScanRequest {
            upper: &layer.upper(),
            // Layers of images are mounted without.
            index: None,
            seen: &seen,
            id_map: request.id_map,
            exclude: request.exclude,
        };
        let delta = scan(scanned, &contents)?;
        drop(contents);
        let tree = apply::apply(&delta, &seen);
        tree.validate().map_err(|source| FsError::InvalidResult { layer: layer.dir().to_owned(), source })?;
        Ok(batch.publish_with_tree(&tree)?)
    }
}
