//! Garbage collection: what is stale loses its row, then its content.

use std::sync::Arc;
use std::time::Duration;

use homeport_meta::{files, uses};
use homeport_store::{Collection, Root, SweepError, Swept};

use super::{CollectOptions, CollectProgress, Collected, ForgottenLayers, StorageError};
use crate::control::Control;
use crate::registry::millis;
use crate::roots::{FOR_GOOD, Owner, OwnerKind, Stale};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long things stay that nobody uses and that can be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    /// Images, build steps, base images, mounts.
    pub(super) builds: Duration,
    /// Mountable forms of layers.
    pub(super) layers: Duration,
}

impl Patience {
    pub(super) const USUAL: Patience =
        Patience { builds: DAY.saturating_mul(30), layers: DAY.saturating_mul(30) };
    /// When the disk is nearly full.
    pub(super) const SHORT: Patience = Patience { builds: DAY.saturating_mul(7), layers: DAY };
}

impl Control {
    /// Removes what nothing refers to. One at a time: a second call waits for the first.
    pub async fn collect_garbage(
        &self,
        options: CollectOptions,
        progress: impl Fn(CollectProgress) + Send + Sync + 'static,
    ) -> Result<Collected, StorageError> {
        self.collect(options, Patience::USUAL, progress).await
    }

    pub(super) async fn collect(
        &self,
        options: CollectOptions,
        patience: Patience,
        progress: impl Fn(CollectProgress) + Send + Sync + 'static,
    ) -> Result<Collected, StorageError> {
        let _turn = self.storage.turn.lock().await;
        progress(CollectProgress { phase: "roots", scanned: 0 });
        // First of all: it fixes what is young.
        let collection = self.store.collection(options.older_than.unwrap_or(self.options.gc_grace));
        let stale = match self.forget_stale(patience, options.dry_run).await {
            // On a full disk no row can be removed, but content can; and then rows.
            Err(error) if error.is_full() => {
                tracing::warn!(%error, "what nobody used for long stays until there is space");
                Stale::default()
            }
            stale => stale?,
        };
        let mut owners = self.owners(&stale).await?;
        if let Some(upkeep) = self.storage.upkeep.get() {
            let bases = Arc::clone(&upkeep.bases);
            let in_use = tokio::task::spawn_blocking(move || bases.in_use(patience.builds)).await?;
            owners.extend(in_use.into_iter().map(|(about, snapshot)| Owner {
                kind: OwnerKind::Base,
                name: about.clone(),
                id: about,
                roots: vec![Root::Tree(snapshot)],
            }));
        }
        let control = self.clone();
        let work = move || control.sweep(collection, &owners, patience, options.dry_run, &progress);
        let collected = tokio::task::spawn_blocking(work).await??;
        if !options.dry_run {
            self.forget_lost_files().await?;
            self.storage.metrics.collected(&collected);
        }
        Ok(collected)
    }

    /// Lets the rows go of what nobody used for long; returns which.
    async fn forget_stale(&self, patience: Patience, dry_run: bool) -> Result<Stale, StorageError> {
        let meta = self.registry.meta();
        let now = millis(self.clock.now());
        let before = now - i64::try_from(patience.builds.as_millis()).unwrap_or(i64::MAX);
        if dry_run {
            return self.stale(before).await;
        }
        self.registry.write_uses().await?;
        uses::stamp(meta, uses::Kind::Steps, now).await?;
        let gone = self.registry.prune(before).await?;
        let steps = uses::sweep(meta, uses::Kind::Steps, before, Some(FOR_GOOD)).await?;
        if !gone.images.is_empty() || !gone.mounts.is_empty() || steps > 0 {
            let (images, mounts) = (gone.images.len(), gone.mounts.len());
            tracing::info!(images, mounts, steps, "forgot what nobody used for long");
        }
        Ok(Stale { registry: gone, ..Stale::default() })
    }

    fn sweep(
        &self,
        mut collection: Collection,
        owners: &[Owner],
        patience: Patience,
        dry_run: bool,
        progress: &dyn Fn(CollectProgress),
    ) -> Result<Collected, StorageError> {
        let mut scanned = 0;
        for owner in owners {
            for root in &owner.roots {
                scanned += 1;
                if !collection.mark(*root) {
                    tracing::error!(owner = owner.name, kind = owner.kind.name(), %root, "content is missing");
                }
            }
            progress(CollectProgress { phase: "mark", scanned });
        }
        let on_sweep = |scanned| progress(CollectProgress { phase: "sweep", scanned });
        let swept = collection.sweep(dry_run, &on_sweep).map_err(|source| {
            let owners = owners_of(&source, owners);
            StorageError::Sweep { source: Box::new(source), owners }
        })?;
        let mut layers = ForgottenLayers::default();
        if let Some(upkeep) = self.storage.upkeep.get() {
            progress(CollectProgress { phase: "images", scanned: 0 });
            let keep = |id: &_, idle| collection.keeps(id) && idle < patience.layers;
            layers = upkeep.layers.forget(&keep, dry_run).map_err(StorageError::Layers)?;
        }
        Ok(totals(&swept, &layers))
    }

    /// Rows on files of which the content went say what is not so.
    async fn forget_lost_files(&self) -> Result<(), StorageError> {
        let meta = self.registry.meta();
        for (sha256, digest) in files::list(meta).await? {
            let is_here = digest.parse().is_ok_and(|digest| self.store.contains(&digest));
            if !is_here {
                files::delete(meta, &sha256).await?;
            }
        }
        Ok(())
    }
}

/// Those whose content it is about, for people.
fn owners_of(error: &SweepError, owners: &[Owner]) -> Vec<String> {
    let SweepError::BrokenRoot(root, _) = error else { return Vec::new() };
    let of_root = owners.iter().filter(|owner| owner.roots.contains(root));
    of_root.take(5).map(|owner| format!("{} {}", owner.kind.name(), owner.name)).collect()
}

fn totals(swept: &Swept, layers: &ForgottenLayers) -> Collected {
    Collected {
        removed_objects: swept.objects,
        removed_trees: swept.trees + swept.deltas,
        removed_images: layers.count,
        removed_bytes: swept.bytes + layers.bytes,
        kept_bytes: swept.kept_bytes + layers.kept_bytes,
    }
}
