//! One Volume in memory: its record, its newest version, and what is in that while it is in use.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};

use homeport_content::{Layered, Stack, Tree};
use homeport_proto::record as rec;
use homeport_store::Store;

use super::account::Links;
use super::catalog::Volumes;
use super::version::Version;
use super::{VolumeError, blocking};
use crate::clock::Seconds;

/// Seconds after its last use for which the layers of a Volume stay decoded.
const KEEP_DECODED: Seconds = 60.0;

/// One Volume.
pub(super) struct Entry {
    /// Held by who makes a version: one at a time, each against the newest.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// Whether somebody looks after the layers of the newest version already.
    pub(super) tidying: AtomicBool,
    now: RwLock<Now>,
}

/// What is the case with a Volume now.
#[derive(Clone)]
pub(super) struct Now {
    pub(super) record: Arc<rec::Volume>,
    pub(super) head: Arc<Version>,
    /// The newest version, decoded, while it is in use.
    pub(super) loaded: Option<Loaded>,
    used: Seconds,
}

/// A decoded version.
#[derive(Clone)]
pub(super) struct Loaded {
    pub(super) layered: Arc<Layered>,
    /// Which files of the base have several names.
    pub(super) links: Arc<Links>,
}

impl Entry {
    pub(super) fn new(record: rec::Volume, head: Version) -> Arc<Self> {
        let now = Now { record: Arc::new(record), head: Arc::new(head), loaded: None, used: 0.0 };
        Arc::new(Self {
            turn: tokio::sync::Mutex::default(),
            tidying: AtomicBool::default(),
            now: RwLock::new(now),
        })
    }

    // Each change leaves the entry whole, so a panic elsewhere doesn't spoil it.
    pub(super) fn now(&self) -> Now {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Now)) {
        change(&mut self.now.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Volumes {
    /// What is in the newest version of a Volume.
    pub async fn layered(self: &Arc<Self>, id: &str) -> Result<Arc<Layered>, VolumeError> {
        let entry = self.entry(id)?;
        Ok(self.load_head(&entry).await?.1.layered)
    }

    /// The newest version and what is in it.
    pub(super) async fn load_head(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
    ) -> Result<(Arc<Version>, Loaded), VolumeError> {
        let now = self.clock.now();
        let Now { head, loaded, .. } = entry.now();
        entry.change(|state| state.used = now);
        if let Some(loaded) = loaded {
            return Ok((head, loaded));
        }
        let (store, stack) = (Arc::clone(&self.store), head.stack.clone());
        let loaded = blocking(move || {
            let layered = Arc::new(layers(&store, &stack)?);
            let links = Arc::new(Links::of(&layered.base));
            Ok::<_, VolumeError>(Loaded { layered, links })
        })
        .await??;
        entry.change(|state| {
            if state.head.stack == head.stack {
                state.loaded = Some(loaded.clone());
            }
        });
        Ok((head, loaded))
    }

    /// Lets go of what was decoded and is not used any more.
    pub fn release_idle(&self) {
        let oldest = self.clock.now() - KEEP_DECODED;
        for entry in self.entries() {
            entry.change(|state| {
                if state.used < oldest {
                    state.loaded = None;
                }
            });
        }
    }
}

/// What is in a version.
pub(super) fn layers(store: &Store, stack: &Stack) -> Result<Layered, VolumeError> {
    if stack.deltas.is_empty() && stack.base == Tree::default().id() {
        return Ok(Layered::of(Arc::new(Tree::default())));
    }
    Ok(store.layered(stack)?)
}
