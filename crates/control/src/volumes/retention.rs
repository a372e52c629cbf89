//! Which versions are kept.
//!
//! By policy: so many of the newest, and none that is too old. Where there are too many, background commits go first
//! that were followed by another version of the same container. Whatever the policy says, the newest version stays,
//! and those with a tag, and those that containers need.

use std::collections::HashSet;

use homeport_meta::{volume_takes, volume_versions};
use homeport_proto::record as rec;

use super::VolumeError;
use super::catalog::Volumes;
use super::entry::Entry;
use super::publish::BACKGROUND;
use super::version::{Version, sql};
use crate::clock::Seconds;

const DAY: Seconds = 24.0 * 3600.0;
/// Versions that come between two looks at the old ones.
const INTERVAL: u64 = 16;

/// What is kept of a Volume that says nothing of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Versions.
    pub versions: u32,
    /// Days for which versions are kept.
    pub days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { versions: 100, days: 30 }
    }
}

/// Which versions a Volume keeps.
#[derive(Debug, Clone, Copy)]
struct Policy {
    versions: usize,
    days: u32,
}

impl Policy {
    fn of(volume: &rec::Volume, usual: Retention) -> Self {
        let or = |value: u32, default: u32| if value == 0 { default } else { value };
        Self {
            versions: or(volume.keep_versions, usual.versions) as usize,
            days: or(volume.keep_days, usual.days),
        }
    }
}

/// The numbers of the versions to drop. `versions` are all that there are, the oldest first; `seen` are the numbers of
/// those that containers see.
fn doomed(versions: &[rec::VolumeVersion], policy: Policy, seen: &[u64], now: Seconds) -> Vec<u64> {
    let oldest_seen = seen.iter().min().copied().unwrap_or(u64::MAX);
    let mut kept: Vec<&rec::VolumeVersion> = versions.iter().collect();
    let oldest = now - f64::from(policy.days) * DAY;
    drop_where(&mut kept, usize::MAX, seen, oldest_seen, |version, _| version.created_at < oldest);
    let lost: HashSet<u64> = versions
        .iter()
        .flat_map(|version| version.conflicts.iter().map(|conflict| conflict.lost_version))
        .collect();
    let excess = kept.len().saturating_sub(policy.versions);
    let gone = drop_where(&mut kept, excess, seen, oldest_seen, |version, next| {
        version.reason == BACKGROUND && is_same_task(version, next) && !lost.contains(&version.number)
    });
    drop_where(&mut kept, excess - gone, seen, oldest_seen, |_, _| true);
    let kept: HashSet<u64> = kept.iter().map(|version| version.number).collect();
    versions.iter().map(|version| version.number).filter(|number| !kept.contains(number)).collect()
}

/// Drops up to `most` versions, the oldest first, of which and of the next one `may_go` is true.
fn drop_where(
    kept: &mut Vec<&rec::VolumeVersion>,
    most: usize,
    seen: &[u64],
    oldest_seen: u64,
    may_go: impl Fn(&rec::VolumeVersion, &rec::VolumeVersion) -> bool,
) -> usize {
    let (mut gone, mut at) = (0, 0);
    while gone < most && at + 1 < kept.len() {
        let (version, next) = (kept[at], kept[at + 1]);
        let is_pinned = !version.tags.is_empty() || seen.contains(&version.number);
        // Containers that see an older version merge what they change with all that came since. What was dropped is
        // found in the next version, and must have come from the same container as that one.
        let is_needed = version.number > oldest_seen && !is_same_task(version, next);
        if !is_pinned && !is_needed && may_go(version, next) {
            kept.remove(at);
            gone += 1;
        } else {
            at += 1;
        }
    }
    gone
}

fn is_same_task(version: &rec::VolumeVersion, next: &rec::VolumeVersion) -> bool {
    !version.task_id.is_empty() && version.task_id == next.task_id
}

impl Volumes {
    /// Looks at the old versions now and then.
    pub(super) async fn prune(&self, volume_id: &str, entry: &Entry) -> Result<(), VolumeError> {
        if entry.now().head.number().is_multiple_of(INTERVAL) {
            self.prune_now(volume_id, entry).await?;
        }
        Ok(())
    }

    /// Drops the versions that need not be kept. Their content goes with the next collection of garbage.
    pub(super) async fn prune_now(&self, volume_id: &str, entry: &Entry) -> Result<(), VolumeError> {
        let _turn = entry.turn.lock().await;
        let mut records = Vec::new();
        for row in volume_versions::list_after(&self.meta, volume_id, -1).await? {
            records.push(Version::of_row(&row)?.record);
        }
        let seen: Vec<u64> = self.containers.seen(volume_id).into_iter().map(|(_, number)| number).collect();
        let now = self.clock.now();
        let doomed = doomed(&records, Policy::of(&entry.now().record, self.retention), &seen, now);
        if doomed.is_empty() {
            return Ok(());
        }
        let numbers: Vec<i64> = doomed.iter().map(|number| sql(*number)).collect();
        volume_versions::delete(&self.meta, volume_id, &numbers).await?;
        tracing::debug!(volume = volume_id, versions = numbers.len(), "old versions were dropped");
        let gone = records.iter().filter(|record| doomed.contains(&record.number));
        for record in gone.filter(|record| !record.task_id.is_empty()) {
            // The last one of a container is what tells its next one from a repeated one.
            let ended =
                record.created_at < now - DAY && !self.containers.is_mounted(&record.task_id, volume_id);
            let sequence = if ended { record.sequence } else { record.sequence.saturating_sub(1) };
            volume_takes::forget(&self.meta, &record.task_id, volume_id, sql(sequence)).await?;
        }
        Ok(())
    }

    /// Drops what has become too old everywhere.
    pub async fn prune_all(&self) {
        for entry in self.entries() {
            let id = entry.now().record.id.clone();
            if let Err(error) = self.prune_now(&id, &entry).await {
                tracing::warn!(volume = id, %error, "old versions of a Volume could not be dropped");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u64, task: &str, reason: &str) -> rec::VolumeVersion {
        rec::VolumeVersion {
            number,
            created_at: number as f64,
            task_id: task.to_owned(),
            reason: reason.to_owned(),
            ..Default::default()
        }
    }

    const THREE: Policy = Policy { versions: 3, days: 30 };

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let versions: Vec<_> = (1..=5).map(|number| version(number, "", "upload")).collect();
        assert_eq!(doomed(&versions, THREE, &[], 10.0), [1, 2]);
        assert_eq!(doomed(&versions[..3], THREE, &[], 10.0), [0; 0]);
    }

    #[test]
    fn background_commits_that_were_followed_go_first() {
        let versions = [
            version(1, "", "upload"),
            version(2, "ta-1", "commit"),
            version(3, "ta-1", BACKGROUND),
            version(4, "ta-1", BACKGROUND),
            version(5, "ta-2", BACKGROUND),
        ];
        assert_eq!(doomed(&versions, THREE, &[], 10.0), [1, 3], "4 is the last of its container");
        assert_eq!(doomed(&versions[..4], THREE, &[], 10.0), [3]);
    }

    #[test]
    fn the_losing_side_of_a_conflict_is_no_mere_background_commit() {
        let mut versions = [
            version(1, "", "upload"),
            version(2, "ta-1", BACKGROUND),
            version(3, "ta-1", "commit"),
            version(4, "", "upload"),
        ];
        assert_eq!(doomed(&versions, THREE, &[], 10.0), [2]);
        versions[3].conflicts = vec![rec::VolumeConflict { lost_version: 2, ..Default::default() }];
        assert_eq!(doomed(&versions, THREE, &[], 10.0), [1]);
    }

    #[test]
    fn tags_and_containers_and_the_newest_hold_versions() {
        let mut versions: Vec<_> = (1..=6).map(|number| version(number, "", "upload")).collect();
        versions[0].tags.push("good".to_owned());
        let one = Policy { versions: 1, days: 30 };
        assert_eq!(doomed(&versions, one, &[], 10.0), [2, 3, 4, 5]);
        // What came after 3 is needed to merge what its container changes.
        assert_eq!(doomed(&versions, one, &[3], 10.0), [2]);
        assert_eq!(doomed(&versions, one, &[], 1e9), [2, 3, 4, 5]);
    }

    #[test]
    fn of_one_container_at_work_only_the_last_is_needed_for_merging() {
        let versions: Vec<_> = (1..=6).map(|number| version(number, "ta-1", BACKGROUND)).collect();
        assert_eq!(doomed(&versions, THREE, &[2], 10.0), [1, 3, 4]);
    }

    #[test]
    fn old_versions_go_by_age() {
        let versions: Vec<_> = (1..=3).map(|number| version(number, "", "upload")).collect();
        assert_eq!(doomed(&versions, Policy { versions: 100, days: 1 }, &[], DAY + 2.5), [1, 2]);
    }
}
