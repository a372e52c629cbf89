//! What workers report of Volumes, brought into the history in the order in which it came.

use homeport_proto::record as rec;
use homeport_proto::worker as wp;
use wp::order::Order;
use wp::volume_shown::Outcome as Shown;

use super::VolumeError;
use super::commits::CommitError;
use super::containers::{Heard, Mounted, Settled};
use super::publish::{Outcome, Report};
use super::version::stack_of;
use crate::control::Control;

/// Conflicts of one commit that are said one by one in the log.
const FEW: usize = 5;

impl Control {
    /// A worker says what became of a version that was to be shown.
    pub(crate) fn hear_shown(&self, shown: wp::VolumeShown) {
        let outcome =
            shown.outcome.unwrap_or_else(|| Shown::Error("the worker did not say what happened".into()));
        // Noted here, since who asked may have gone away meanwhile.
        if let (Shown::Version(version), Some(mounted)) =
            (&outcome, self.volumes.containers.find(&shown.task_id, &shown.volume_id))
        {
            mounted.shows(*version);
        }
        self.volumes.containers.shown(&shown.op_id, outcome);
    }

    /// A worker says what a container changed.
    pub(crate) fn hear_taken(&self, worker_id: &str, taken: wp::VolumeTaken) {
        let task_id = taken.task_id.clone();
        self.hear_in_order(&task_id, Heard::Taken(worker_id.to_owned(), taken));
    }

    /// A worker says that a container has ended: known when all that it changed before is settled.
    pub(crate) fn hear_ended(&self, ended: wp::TaskEnded) {
        let task_id = ended.task_id.clone();
        if self.volumes.containers.is_busy(&task_id) {
            self.hear_in_order(&task_id, Heard::Ended(ended));
        } else {
            self.volumes.containers.unmount(&task_id);
            self.task_has_ended(ended);
        }
    }

    fn hear_in_order(&self, task_id: &str, heard: Heard) {
        let Some(mut waiting) = self.volumes.containers.queue(task_id, heard) else { return };
        let (control, task_id) = (self.clone(), task_id.to_owned());
        tokio::spawn(async move {
            while let Some(heard) = control.volumes.containers.next(&task_id, &mut waiting) {
                match heard {
                    Heard::Taken(worker_id, taken) => control.settle(&worker_id, taken).await,
                    Heard::Ended(ended) => {
                        control.volumes.containers.unmount(&task_id);
                        control.task_has_ended(ended);
                    }
                }
            }
        });
    }

    async fn settle(&self, worker_id: &str, taken: wp::VolumeTaken) {
        let op_id = taken.op_id.clone();
        let result = self.settle_taken(worker_id, taken).await;
        if !op_id.is_empty() {
            self.volumes.containers.taken(&op_id, result);
        }
    }

    /// Brings a change into the history and tells the worker so.
    async fn settle_taken(&self, worker_id: &str, taken: wp::VolumeTaken) -> Result<Settled, CommitError> {
        let mounted = self.volumes.containers.find(&taken.task_id, &taken.volume_id);
        if !taken.error.is_empty() {
            if taken.op_id.is_empty() {
                self.say_of(mounted.as_deref(), &taken, &taken.error);
            }
            return Err(CommitError::Worker(taken.error));
        }
        let settled = Settled { clean: taken.clean };
        if taken.delta.is_empty() {
            // Nothing new, which is well if nothing old is missing.
            let owed = mounted.and_then(|mounted| mounted.owed());
            return owed.map_or(Ok(settled), |why| Err(CommitError::Owed(why)));
        }
        let seen = taken.seen.as_ref().and_then(stack_of);
        if let (Some(mounted), Some(seen), Ok(delta)) = (&mounted, seen, taken.delta.parse()) {
            // It sees this from now on, whatever comes of the commit.
            mounted.pin(&self.store, &seen.with(delta));
        }
        let published = match report(&taken, mounted.as_deref()) {
            Ok(report) => self.volumes.publish_taken(report).await,
            Err(error) => Err(error),
        };
        let outcome = match published {
            Ok(outcome) => outcome,
            Err(error) => {
                // It is not acknowledged, so the worker repeats it.
                let text = error.to_string();
                if mounted.as_ref().is_none_or(|mounted| mounted.owes(&text)) {
                    self.say_of(
                        mounted.as_deref(),
                        &taken,
                        &format!("A commit failed and will be repeated: {text}"),
                    );
                }
                return Err(error.into());
            }
        };
        if let Some(mounted) = &mounted {
            match &outcome {
                Outcome::Published { version, merged: false } => mounted.committed(Some(version.number())),
                _ => mounted.committed(None),
            }
        }
        let kept = wp::VolumeKept {
            task_id: taken.task_id.clone(),
            volume_id: taken.volume_id.clone(),
            sequence: taken.sequence,
        };
        self.links.send(worker_id, Order::VolumeKept(kept));
        match outcome {
            Outcome::Published { version, .. } => {
                self.say_conflicts(mounted.as_deref(), &taken, &version.record)
            }
            Outcome::Known => {}
            Outcome::Gone => {
                let text = format!(
                    "The Volume {} was deleted: what was changed in it since is dropped.",
                    taken.volume_id
                );
                self.say_of(mounted.as_deref(), &taken, &text);
                return Err(VolumeError::Missing(taken.volume_id).into());
            }
        }
        Ok(settled)
    }

    /// Says something of a container's Volume where its user reads it.
    fn say_of(&self, mounted: Option<&Mounted>, taken: &wp::VolumeTaken, text: &str) {
        tracing::warn!(task = taken.task_id, volume = taken.volume_id, "{text}");
        if let Some(mounted) = mounted {
            self.logs.say(&mounted.log_id, &format!("Volume {}: {text}", mounted.name), self.clock.now());
        }
    }

    fn say_conflicts(
        &self,
        mounted: Option<&Mounted>,
        taken: &wp::VolumeTaken,
        version: &rec::VolumeVersion,
    ) {
        for conflict in version.conflicts.iter().take(FEW) {
            let path = String::from_utf8_lossy(&conflict.path);
            let did = if conflict.lost_removed { "removed" } else { "changed" };
            let text = format!(
                "`{path}` was {did} by {} as well (version {}). This commit, version {}, counts; the other content \
                 stays in the history, for `homeport volume restore`.",
                conflict.lost_by, conflict.lost_version, version.number
            );
            self.say_of(mounted, taken, &text);
        }
        let more = version.conflicts.len().saturating_sub(FEW);
        if more > 0 {
            let text = format!("{more} more such files are listed by `homeport volume log`.");
            self.say_of(mounted, taken, &text);
        }
    }
}

fn report(taken: &wp::VolumeTaken, mounted: Option<&Mounted>) -> Result<Report, VolumeError> {
    let damaged =
        |reason: &str| VolumeError::Record { id: taken.volume_id.clone(), reason: reason.to_owned() };
    Ok(Report {
        task_id: taken.task_id.clone(),
        function_name: mounted.map(|mounted| mounted.function_name.clone()).unwrap_or_default(),
        app_id: mounted.map(|mounted| mounted.app_id.clone()).unwrap_or_default(),
        volume_id: taken.volume_id.clone(),
        sequence: taken.sequence,
        delta: taken.delta.parse().map_err(|_| damaged("the worker named no delta"))?,
        seen_version: taken.seen_version,
        seen: taken
            .seen
            .as_ref()
            .and_then(stack_of)
            .ok_or_else(|| damaged("the worker did not say what the container saw"))?,
        reason: taken.reason(),
    })
}
