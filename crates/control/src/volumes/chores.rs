//! What is done with Volumes from time to time.

use std::collections::HashSet;
use std::sync::Arc;

use super::catalog::{Volumes, lock};
use crate::clock::Seconds;
use crate::control::Control;

/// Seconds for which the client of an ephemeral Volume may be silent: it says something every 300.
const SILENCE: Seconds = 900.0;
/// Seconds between two looks at what nobody uses.
const OFTEN: Seconds = 15.0;
/// Seconds between two looks at versions that grew too old.
const SELDOM: Seconds = 3600.0;

impl Control {
    /// Lets go of what is not in use, ends ephemeral Volumes of silent clients, drops old versions. All of it goes on
    /// beside the caller.
    pub(crate) fn look_after_volumes(&self) {
        let now = self.clock.now();
        if self.volumes.is_due(OFTEN, now, Chore::Often) {
            let live: HashSet<String> = self
                .with_scheduler(|scheduler, _| scheduler.live_tasks().map(|task| task.id.clone()).collect());
            self.volumes.containers.forget_lost(now, |task_id| live.contains(task_id));
            self.volumes.release_idle();
            for id in self.volumes.silent(SILENCE) {
                let volumes = Arc::clone(&self.volumes);
                tokio::spawn(async move {
                    tracing::info!(volume = id, "the client of an ephemeral Volume is gone: it is deleted");
                    if let Err(error) = volumes.delete(&id).await {
                        tracing::warn!(volume = id, %error, "an ephemeral Volume could not be deleted");
                    }
                });
            }
        }
        if self.volumes.is_due(SELDOM, now, Chore::Seldom) {
            let volumes = Arc::clone(&self.volumes);
            tokio::spawn(async move { volumes.prune_all().await });
        }
    }
}

/// What is done from time to time.
#[derive(Debug, Clone, Copy)]
enum Chore {
    Often,
    Seldom,
}

impl Volumes {
    /// A sign of life of the client of an ephemeral Volume.
    pub fn beat(&self, id: &str) {
        lock(&self.heard).insert(id.to_owned(), self.clock.now());
    }

    /// The ephemeral Volumes whose clients were silent for so long, and that no container has mounted.
    pub fn silent(&self, patience: Seconds) -> Vec<String> {
        let oldest = self.clock.now() - patience;
        let silent: Vec<String> =
            lock(&self.heard).iter().filter(|(_, at)| **at < oldest).map(|(id, _)| id.clone()).collect();
        silent.into_iter().filter(|id| self.containers.mounts_of(id) == 0).collect()
    }

    /// Whether a chore was not done for so long; it counts as done from now on.
    fn is_due(&self, interval: Seconds, now: Seconds, chore: Chore) -> bool {
        let last = &mut lock(&self.chores)[chore as usize];
        let due = now - *last >= interval;
        if due {
            *last = now;
        }
        due
    }
}
