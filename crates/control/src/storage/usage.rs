//! Where the space goes, for people.

use std::path::Path;

use homeport_store::{Root, Usage};

use super::{DiskUsage, ForgottenLayers, StorageError, UsageRow};
use crate::control::Control;
use crate::roots::{Owner, OwnerKind, Stale};

impl Control {
    /// Says where the space goes.
    pub async fn disk_usage(&self) -> Result<DiskUsage, StorageError> {
        let _turn = self.storage.turn.lock().await;
        let owners = self.owners(&Stale::default()).await?;
        let control = self.clone();
        tokio::task::spawn_blocking(move || control.count(owners)).await?
    }

    fn count(&self, mut owners: Vec<Owner>) -> Result<DiskUsage, StorageError> {
        // What is shared by all steps of a build is nobody's own; together they are one.
        let cache = owners.extract_if(.., |owner| owner.kind == OwnerKind::Step);
        let cache: Vec<Root> = cache.flat_map(|owner| owner.roots).collect();
        let mut roots: Vec<Vec<Root>> = owners.iter().map(|owner| owner.roots.clone()).collect();
        roots.push(cache);
        roots.push(self.store.pinned());
        let usage = self.store.usage(&roots)?;
        let extra = [("build cache", "all steps"), ("running", "what is mounted")];
        let names = owners
            .iter()
            .map(|owner| (owner.kind.name(), owner.name.as_str()))
            .chain(extra)
            .map(|(kind, name)| (kind.to_owned(), name.to_owned()));
        let mut rows: Vec<UsageRow> = names
            .zip(&usage.owners)
            .map(|((kind, name), owner)| UsageRow {
                kind,
                name,
                bytes: owner.bytes,
                unique_bytes: owner.unique,
            })
            .collect();
        rows.extend(self.beside_the_store(&usage)?);
        rows.retain(|row| row.bytes > 0);
        rows.sort_by(|a, b| (b.bytes, &a.kind, &a.name).cmp(&(a.bytes, &b.kind, &b.name)));
        let free_bytes = self.free_bytes().unwrap_or(0);
        self.storage.metrics.holds(usage.total);
        self.storage.metrics.is_free(free_bytes);
        Ok(DiskUsage { rows, total_bytes: usage.total, garbage_bytes: usage.garbage, free_bytes })
    }

    /// What is in the data directory and has no content in the store.
    fn beside_the_store(&self, usage: &Usage) -> Result<Vec<UsageRow>, StorageError> {
        let mut rows = Vec::new();
        let mut add = |kind: &str, name: &str, bytes| {
            rows.push(UsageRow { kind: kind.to_owned(), name: name.to_owned(), bytes, unique_bytes: bytes });
        };
        add("put aside", "damaged files", usage.quarantined);
        let (blobs, unfinished) = self.blobs.disk_usage();
        add("blob", "inputs and results of calls", blobs);
        add("upload", "unfinished uploads", self.blobs.blocks().disk_usage() + unfinished);
        if let Some(upkeep) = self.storage.upkeep.get() {
            let ForgottenLayers { kept_bytes, .. } =
                upkeep.layers.forget(&|_, _| true, true).map_err(StorageError::Layers)?;
            add("layer cache", "mountable forms", kept_bytes);
        }
        Ok(rows)
    }

    /// Bytes that can still be written to the disk of the data directory; `None` if it cannot be asked.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        free(self.store.dir()).map(|space| space.available)
    }
}

/// Space of a file system.
#[derive(Debug, Clone, Copy)]
pub(super) struct Space {
    pub(super) available: u64,
    pub(super) total: u64,
}

pub(super) fn free(path: &Path) -> Option<Space> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(Space {
        available: found.f_bavail.saturating_mul(found.f_frsize),
        total: found.f_blocks.saturating_mul(found.f_frsize),
    })
}
