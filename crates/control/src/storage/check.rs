//! The check of the store, with what the database says of it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use homeport_meta::steps;
use homeport_store::{CheckNews, CheckRequest, Fault, Finding, Root};

use super::{CheckEvent, CheckOptions, Checked, StorageError};
use crate::control::Control;
use crate::roots::{Owner, OwnerKind, Stale};

/// Time between two messages that only say how far it is.
const INTERVAL: Duration = Duration::from_millis(500);

/// Says what comes, not too often.
struct Teller<F> {
    on_event: F,
    objects: AtomicU64,
    bytes: AtomicU64,
    last: Mutex<Instant>,
    /// What is missing or damaged and was not mended.
    broken: Mutex<HashSet<Root>>,
}

impl Control {
    /// Reads everything in the store and says what is wrong with it. `on_event` is called from
    /// other threads.
    pub async fn check_store(
        &self,
        options: CheckOptions,
        on_event: impl Fn(CheckEvent) + Send + Sync + 'static,
    ) -> Result<Checked, StorageError> {
        // Nothing is collected meanwhile.
        let _turn = self.storage.turn.lock().await;
        let owners = self.owners(&Stale::default()).await?;
        let named = |owner: &Owner| format!("{} {}", owner.kind.name(), owner.name);
        let request = CheckRequest {
            roots: owners
                .iter()
                .flat_map(|owner| owner.roots.iter().map(|root| (*root, named(owner))))
                .collect(),
            repair: options.repair,
            sources: options.repair_from.into_iter().chain(self.copies()).collect(),
        };
        let teller = Teller {
            on_event,
            objects: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            last: Mutex::new(Instant::now()),
            broken: Mutex::default(),
        };
        let control = self.clone();
        let work = move || {
            let summary = control.store.check(&request, &|news| control.heard(&teller, news));
            (summary, teller)
        };
        let (summary, teller) = tokio::task::spawn_blocking(work).await?;
        let summary = summary?;
        let mut checked = Checked {
            objects: summary.read,
            bytes: summary.bytes,
            faults: summary.faults,
            mended: summary.mended,
        };
        for finding in self.check_accounts(options.repair).await? {
            checked.faults += 1;
            checked.mended += u64::from(finding.mended.is_some());
            self.heard(&teller, CheckNews::Found(&finding));
        }
        if options.repair {
            self.forget_broken(&owners, &teller).await?;
        }
        Ok(checked)
    }

    /// Directories of this server in which copies may be.
    pub(super) fn copies(&self) -> Vec<std::path::PathBuf> {
        self.storage.upkeep.get().map(|upkeep| upkeep.copies.clone()).unwrap_or_default()
    }

    fn heard<F: Fn(CheckEvent)>(&self, teller: &Teller<F>, news: CheckNews<'_>) {
        match news {
            CheckNews::Read(bytes) => {
                teller.objects.fetch_add(1, Ordering::Relaxed);
                teller.bytes.fetch_add(bytes, Ordering::Relaxed);
                let mut last = teller.last.lock().unwrap_or_else(PoisonError::into_inner);
                if last.elapsed() < INTERVAL {
                    return;
                }
                *last = Instant::now();
                teller.tell(None);
            }
            CheckNews::Found(finding) => {
                self.note_finding(finding);
                if let Some(root) = lost(finding) {
                    teller.broken.lock().unwrap_or_else(PoisonError::into_inner).insert(root);
                }
                teller.tell(Some(finding));
            }
        }
    }

    /// Writes down that something is wrong.
    pub(super) fn note_finding(&self, finding: &Finding) {
        let whole = finding.mended.as_ref().is_some_and(homeport_store::Mended::is_whole);
        self.storage.metrics.fault(whole);
        match &finding.mended {
            Some(mended) => tracing::error!("{}; {mended}", finding.fault),
            None => tracing::error!("{}", finding.fault),
        }
    }

    /// Lets images and steps go of which something is lost: they are made again when they are asked for.
    async fn forget_broken<F: Fn(CheckEvent)>(
        &self,
        owners: &[Owner],
        teller: &Teller<F>,
    ) -> Result<(), StorageError> {
        let broken = std::mem::take(&mut *teller.broken.lock().unwrap_or_else(PoisonError::into_inner));
        if broken.is_empty() {
            return Ok(());
        }
        let needed = self.registry.needed();
        let (control, owners) = (self.clone(), owners.to_vec());
        let find = move || owners.into_iter().filter(|owner| control.is_broken(owner, &broken)).collect();
        let hit: Vec<Owner> = tokio::task::spawn_blocking(find).await?;
        for owner in hit {
            let forgotten = match owner.kind {
                OwnerKind::Image if !needed.contains(&owner.id) => {
                    self.registry.forget_image(&owner.id).await?;
                    true
                }
                OwnerKind::Step => steps::delete(self.registry.meta(), &owner.id).await?,
                _ => false,
            };
            if forgotten {
                tracing::warn!(
                    kind = owner.kind.name(),
                    name = owner.name,
                    "will be made again when it is wanted"
                );
            }
        }
        Ok(())
    }

    fn is_broken(&self, owner: &Owner, broken: &HashSet<Root>) -> bool {
        owner.roots.iter().any(|root| {
            broken.contains(root)
                || match self.store.objects_in(root) {
                    Ok(objects) => objects.iter().any(|object| broken.contains(&Root::Object(*object))),
                    Err(_) => true,
                }
        })
    }
}

impl<F: Fn(CheckEvent)> Teller<F> {
    fn tell(&self, finding: Option<&Finding>) {
        (self.on_event)(CheckEvent {
            checked_objects: self.objects.load(Ordering::Relaxed),
            checked_bytes: self.bytes.load(Ordering::Relaxed),
            fault: finding.map(|finding| finding.fault.to_string()),
            mended: finding.and_then(|finding| finding.mended.as_ref()).map(ToString::to_string),
        });
    }
}

/// What is not there as it should be, after all that was done about it.
fn lost(finding: &Finding) -> Option<Root> {
    if finding.mended.as_ref().is_some_and(homeport_store::Mended::is_whole) {
        return None;
    }
    match &finding.fault {
        Fault::Altered { what, .. }
        | Fault::WrongSize { what, .. }
        | Fault::Unreadable { what, .. }
        | Fault::Undecodable { what, .. }
        | Fault::Missing { what, .. } => Some(*what),
        _ => None,
    }
}
