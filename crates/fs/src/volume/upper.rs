//! An upper directory with all that is needed to read it.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;

use homeport_content::{Delta, FileContent, Layered, LeafKind, Stack};
use homeport_store::Batch;

use super::VolumeError;
use super::disk::GenerationDirectory;
use super::scan::{self, Contents, Found, Index, ScanRequest};
use crate::error::io_error;
use crate::kernel::LayerMount;
use crate::{IdMap, Lower, SnapshotFs};

/// An upper directory, and what it was mounted over.
pub(super) struct Upper {
    pub(super) generation: GenerationDirectory,
    pub(super) below: Layered,
    over: Stack,
    /// The base first.
    layers: Vec<Arc<LayerMount>>,
    id_map: Option<Arc<IdMap>>,
    path: PathBuf,
    index: PathBuf,
}

impl Upper {
    pub(super) fn new(
        fs: &SnapshotFs,
        generation: GenerationDirectory,
        over: &Stack,
        id_map: Option<Arc<IdMap>>,
    ) -> Result<Upper, VolumeError> {
        let below = fs.store.layered(over)?;
        let deltas = over.deltas.iter().map(|delta| Lower::Delta(*delta));
        let lowers = std::iter::once(Lower::Snapshot(over.base)).chain(deltas);
        let layers = lowers.map(|lower| fs.layer_mount(lower)).collect::<Result<_, _>>()?;
        let (path, index) = (generation.upper(), generation.work().join("index"));
        Ok(Upper { generation, below, over: over.clone(), layers, id_map, path, index })
    }

    /// Everything that it holds, as a delta over what it was mounted over.
    pub(super) fn scan(&self, contents: &Contents<'_>) -> Result<Delta, VolumeError> {
        let fds = self.layer_fds();
        Ok(scan::scan(self.request(&fds), contents)?)
    }

    /// As [`Upper::scan`]; when `looked` is called, nobody needs to keep still any more.
    pub(super) fn scan_quickly(
        &self,
        contents: &Contents<'_>,
        looked: impl FnOnce(),
    ) -> Result<Delta, VolumeError> {
        let fds = self.layer_fds();
        let found: Found<'_> = scan::look(self.request(&fds), contents)?;
        looked();
        Ok(found.finish(contents)?)
    }

    fn layer_fds(&self) -> Vec<BorrowedFd<'_>> {
        self.layers.iter().map(|layer| layer.fd()).collect()
    }

    fn request<'a>(&'a self, layers: &'a [BorrowedFd<'a>]) -> ScanRequest<'a> {
        ScanRequest {
            upper: &self.path,
            index: Some(Index { dir: &self.index, stack: &self.over, layers }),
            seen: &self.below,
            id_map: self.id_map.as_deref(),
            exclude: &[],
        }
    }

    /// Gives each file with new content, which a scan linked into the batch, a name in `data`, by which others find it
    /// when the batch is gone.
    pub(super) fn name_contents(&self, batch: &Batch<'_>, whole: &Delta) -> Result<(), VolumeError> {
        let data = self.generation.make_data()?;
        for leaf in &whole.leaves {
            let LeafKind::File(FileContent::Object { digest, .. }) = &leaf.kind else { continue };
            let Some(staged) = batch.staged_path(digest) else { continue };
            let hex = digest.to_hex();
            let (shard, rest) = hex.split_at(2);
            let shard = data.join(shard);
            let named = shard.join(rest);
            let linked = match std::fs::hard_link(&staged, &named) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    std::fs::create_dir(&shard).and_then(|()| std::fs::hard_link(&staged, &named))
                }
                // Two leaves with one content.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
                linked => linked,
            };
            linked.map_err(io_error("link to", &named))?;
        }
        Ok(())
    }
}
