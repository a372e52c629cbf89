//! Upkeep without being asked: a collection each day and when space is short, and the scrubber.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use homeport_store::ScrubPolicy;
use tokio_util::sync::CancellationToken;

use super::collect::Patience;
use super::usage::free;
use super::{BoxedError, CollectOptions, StorageError};
use crate::control::Control;

/// Between two looks at the space.
const LOOK: Duration = Duration::from_secs(60);
/// From the start to the first collection: a server that was just started has other things to do.
const FIRST: Duration = Duration::from_secs(10 * 60);
const DAILY: Duration = Duration::from_secs(24 * 60 * 60);
/// Between two collections because of little space.
const URGENT: Duration = Duration::from_secs(60 * 60);
/// Space is short below the smaller of these: a share of the disk, and bytes.
const SHORT_SHARE: u64 = 20;
const SHORT_BYTES: u64 = 10 << 30;
/// An upload to which nothing was added for so long rests.
const RESTING: Duration = Duration::from_secs(60 * 60);
/// Complete blobs have owners.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);
/// Between two looks whether the scrubber has something to do.
const SCRUB_LOOK: Duration = Duration::from_secs(10 * 60);

impl Control {
    /// Collects garbage and looks for damage until `stop`.
    pub async fn look_after_store(self, stop: CancellationToken) {
        tokio::join!(self.collect_in_background(&stop), self.scrub_in_background(&stop));
    }

    async fn collect_in_background(&self, stop: &CancellationToken) {
        let start = Instant::now();
        let mut last: Option<Instant> = None;
        let mut interval = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = interval.tick() => {}
            }
            let is_short = self.is_space_short();
            let since = last.map(|last| last.elapsed());
            let due = match since {
                None => start.elapsed() >= FIRST || is_short,
                Some(since) => since >= DAILY || (is_short && since >= URGENT),
            };
            if !due {
                continue;
            }
            if is_short {
                self.give_up_uploads().await;
            }
            let patience = if is_short { Patience::SHORT } else { Patience::USUAL };
            match self.collect(CollectOptions::default(), patience, |_| ()).await {
                Ok(collected) => tracing::info!(
                    removed = collected.removed_bytes,
                    kept = collected.kept_bytes,
                    is_short,
                    "collected garbage"
                ),
                Err(error) => say(&error),
            }
            if is_short && self.is_space_short() {
                tracing::warn!(
                    "the disk of the data directory is nearly full; `homeport du` says where the space goes"
                );
            }
            last = Some(Instant::now());
        }
    }

    /// What is left of uploads that rest goes before its time: whoever goes on sends it again.
    async fn give_up_uploads(&self) {
        let blobs = Arc::clone(&self.blobs);
        let sweep = move || -> Result<(), BoxedError> {
            blobs.sweep(FOR_EVER, RESTING)?;
            blobs.blocks().sweep(RESTING)?;
            Ok(())
        };
        let swept = tokio::task::spawn_blocking(sweep).await;
        if let Err(error) = swept.map_err(BoxedError::from).and_then(std::convert::identity) {
            tracing::warn!(error, "uploads that rest could not be removed");
        }
    }

    fn is_space_short(&self) -> bool {
        let Some(space) = free(self.store.dir()) else { return false };
        self.storage.metrics.is_free(space.available);
        space.available < (space.total / SHORT_SHARE).min(SHORT_BYTES)
    }

    async fn scrub_in_background(&self, stop: &CancellationToken) {
        let policy = ScrubPolicy { sources: self.copies(), ..ScrubPolicy::default() };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(SCRUB_LOOK) => {}
            }
            if !self.store.scrub_due(&policy).is_zero() {
                continue;
            }
            let stopped = Arc::new(AtomicBool::new(false));
            let (control, policy, flag) = (self.clone(), policy.clone(), Arc::clone(&stopped));
            let (done, mut ended) = tokio::sync::oneshot::channel();
            // A thread of its own, because it gets the lowest priority and keeps it.
            let thread = std::thread::Builder::new().name("scrub".to_owned()).spawn(move || {
                let scrubbed = control.store.scrub(&policy, &flag, &|finding| control.note_finding(finding));
                // Nobody listens when the server has ended.
                let _ = done.send(scrubbed);
            });
            if let Err(error) = thread {
                tracing::warn!(%error, "the scrubber could not be started");
                continue;
            }
            let scrubbed = tokio::select! {
                scrubbed = &mut ended => scrubbed,
                () = stop.cancelled() => {
                    stopped.store(true, Ordering::Relaxed);
                    ended.await
                }
            };
            match scrubbed {
                Ok(Ok(state)) if state.done => {
                    tracing::info!(
                        files = state.files,
                        bytes = state.bytes,
                        faults = state.faults,
                        "read the whole store"
                    );
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => say(&error.into()),
                Err(_) => tracing::error!("the scrubber ended badly"),
            }
        }
    }
}

fn say(error: &StorageError) {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    tracing::error!(%error, source, "the store could not be looked after");
}
