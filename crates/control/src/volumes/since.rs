//! What came into the history beside a container.

use std::sync::Arc;

use homeport_content::{Delta, DeltaId, Stack, diff};
use homeport_meta::volume_versions;
use homeport_store::Store;

use super::VolumeError;
use super::catalog::Volumes;
use super::entry::layers;
use super::publish::{Report, who};
use super::version::{Version, sql};

/// One version that a container did not see.
pub(super) struct Since {
    pub(super) version: u64,
    /// Whether it is an earlier change of the same container.
    pub(super) own: bool,
    /// For people.
    pub(super) by: String,
    change: Changed,
}

enum Changed {
    Stored(DeltaId),
    Between(Stack, Stack),
}

impl Since {
    pub(super) fn delta(&self, store: &Store) -> Result<Arc<Delta>, VolumeError> {
        match &self.change {
            Changed::Stored(id) => Ok(store.delta(id)?),
            Changed::Between(old, new) => Ok(Arc::new(diff(&layers(store, old)?, &layers(store, new)?))),
        }
    }
}

impl Volumes {
    /// What came into the history after the version that a container saw, the oldest first.
    pub(super) async fn since(&self, report: &Report) -> Result<Vec<Since>, VolumeError> {
        let id = &report.volume_id;
        let seen = volume_versions::get(&self.meta, id, sql(report.seen_version)).await?;
        let (mut number, mut stack) = (report.seen_version, report.seen.clone());
        if let Some(seen) = seen {
            stack = Version::of_row(&seen)?.stack;
        }
        let mut since = Vec::new();
        for row in volume_versions::list_after(&self.meta, id, sql(report.seen_version)).await? {
            let version = Version::of_row(&row)?;
            // Where versions were dropped between two, or one began anew, the difference says what happened.
            let delta = (version.number() == number + 1).then(|| version.record.delta.parse().ok()).flatten();
            let change = match delta {
                Some(delta) => Changed::Stored(delta),
                None => Changed::Between(stack, version.stack.clone()),
            };
            since.push(Since {
                version: version.number(),
                own: version.record.task_id == report.task_id,
                by: who(&version.record),
                change,
            });
            (number, stack) = (version.number(), version.stack);
        }
        Ok(since)
    }
}
