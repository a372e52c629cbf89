//! What of the store Volumes need.

use std::collections::HashSet;
use std::sync::Arc;

use homeport_content::{DeltaId, Stack};
use homeport_meta::volume_versions;
use homeport_proto::record as rec;

use super::VolumeError;
use super::catalog::Volumes;
use super::version::Version;

/// What of the store one Volume needs.
#[derive(Debug, Clone)]
pub struct VolumeRoots {
    /// The Volume.
    pub volume: Arc<rec::Volume>,
    /// The layers of the versions that are kept; the newest is the last.
    pub stacks: Vec<Stack>,
    /// What the versions changed.
    pub deltas: Vec<DeltaId>,
}

impl Volumes {
    /// What all Volumes need, at one moment: a version that is in none of them is in no Volume. What containers have
    /// mounted beyond that is pinned in the store.
    pub async fn roots(&self) -> Result<Vec<VolumeRoots>, VolumeError> {
        let mut all: Vec<VolumeRoots> = Vec::new();
        for row in volume_versions::list_all(&self.meta).await? {
            let version = Version::of_row(&row)?;
            if all.last().is_none_or(|last| last.volume.id != row.volume_id) {
                // One that is being made or deleted at this moment has no record, but layers.
                let volume = self.find(&row.volume_id).unwrap_or_else(|_| {
                    Arc::new(rec::Volume { id: row.volume_id.clone(), ..Default::default() })
                });
                all.push(VolumeRoots { volume, stacks: Vec::new(), deltas: Vec::new() });
            }
            let Some(roots) = all.last_mut() else { continue };
            roots.stacks.push(version.stack);
            roots.deltas.extend(version.record.delta.parse::<DeltaId>());
        }
        // Those without a version rest on the empty tree.
        let listed: HashSet<String> = all.iter().map(|roots| roots.volume.id.clone()).collect();
        for entry in self.entries() {
            let now = entry.now();
            if !listed.contains(&now.record.id) {
                all.push(VolumeRoots {
                    volume: now.record,
                    stacks: vec![now.head.stack.clone()],
                    deltas: Vec::new(),
                });
            }
        }
        Ok(all)
    }
}
