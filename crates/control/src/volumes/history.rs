//! The history of a Volume: its versions, their tags, and second Volumes that begin with one of them.

use std::sync::Arc;

use homeport_meta::volume_versions;
use homeport_proto::client as pb;
use homeport_proto::record as rec;

use super::VolumeError;
use super::catalog::{NewVolume, Volumes, first, is_word};
use super::publish::display_name;
use super::version::{Version, sql};
use crate::ids;

/// A version, as a person reads of it.
#[derive(Debug, Clone)]
pub struct LogEntry {
    /// What is known of it.
    pub version: rec::VolumeVersion,
    /// Why it is kept whatever the policy says, for example `tag good` or `pinned by ta-…`; empty if it isn't.
    pub pinned_by: String,
}

impl Volumes {
    /// The versions that are kept, newest first; all of them if `limit` is 0.
    pub async fn log(&self, volume_id: &str, limit: usize) -> Result<Vec<LogEntry>, VolumeError> {
        self.find(volume_id)?;
        let seen = self.containers.seen(volume_id);
        let mut entries = Vec::new();
        for row in volume_versions::list_after(&self.meta, volume_id, -1).await?.iter().rev() {
            let version = Version::of_row(row)?.record;
            let mut pins: Vec<String> = version.tags.iter().map(|tag| format!("tag {tag}")).collect();
            let tasks = seen.iter().filter(|(_, number)| *number == version.number);
            pins.extend(tasks.map(|(task_id, _)| format!("pinned by {task_id}")));
            entries.push(LogEntry { version, pinned_by: pins.join(", ") });
            if entries.len() == limit {
                break;
            }
        }
        Ok(entries)
    }

    /// The version that a person means: a number, a tag, or nothing for the newest.
    pub async fn version(&self, volume_id: &str, spec: &str) -> Result<Version, VolumeError> {
        let volume = self.find(volume_id)?;
        if spec.is_empty() {
            return Ok((*self.head(volume_id)?).clone());
        }
        let missing = || VolumeError::NoVersion { volume: display_name(&volume), version: spec.to_owned() };
        if let Ok(number) = spec.parse::<u64>() {
            if number == 0 {
                return Ok(first(&volume));
            }
            let row = volume_versions::get(&self.meta, volume_id, sql(number)).await?;
            return Version::of_row(&row.ok_or_else(missing)?);
        }
        for row in volume_versions::list_after(&self.meta, volume_id, -1).await? {
            let version = Version::of_row(&row)?;
            if version.record.tags.iter().any(|tag| tag == spec) {
                return Ok(version);
            }
        }
        Err(missing())
    }

    /// Puts a tag on a version, or takes it away. A tag is on one version at most: it moves.
    pub async fn tag(
        &self,
        volume_id: &str,
        spec: &str,
        tag: &str,
        remove: bool,
    ) -> Result<u64, VolumeError> {
        if !is_word(tag) || tag.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(VolumeError::Tag(tag.to_owned()));
        }
        let entry = self.entry(volume_id)?;
        let _turn = entry.turn.lock().await;
        let target = match (remove, spec) {
            (true, "") => self.version(volume_id, tag).await?,
            _ => self.version(volume_id, spec).await?,
        };
        if target.number() == 0 {
            // It has no row to keep a tag.
            let volume = display_name(&entry.now().record);
            return Err(VolumeError::NoVersion { volume, version: "0".to_owned() });
        }
        let mut changed = Vec::new();
        for row in volume_versions::list_after(&self.meta, volume_id, -1).await? {
            let mut version = Version::of_row(&row)?;
            let before = version.record.tags.clone();
            let is_target = version.number() == target.number();
            version.record.tags.retain(|known| known != tag || (remove && !is_target));
            if is_target && !remove {
                version.record.tags.push(tag.to_owned());
            }
            if version.record.tags != before {
                changed.push(version);
            }
        }
        let rows: Vec<_> = changed.iter().map(|version| version.row(volume_id)).collect();
        volume_versions::replace(&self.meta, &rows).await?;
        entry.change(|state| {
            if let Some(head) = changed.iter().find(|version| version.number() == state.head.number()) {
                state.head = Arc::new(head.clone());
            }
        });
        Ok(target.number())
    }

    /// Makes a second Volume that begins with what is in a version, at no cost. Returns its id and the number of its
    /// first version.
    pub async fn fork(
        &self,
        volume_id: &str,
        new_name: &str,
        spec: &str,
    ) -> Result<(String, u64), VolumeError> {
        let entry = self.entry(volume_id)?;
        // The version stays until it is that of the new Volume as well.
        let _turn = entry.turn.lock().await;
        let origin = self.version(volume_id, spec).await?;
        let volume = entry.now().record;
        let new = NewVolume {
            name: new_name.to_owned(),
            environment: volume.environment.clone(),
            api_version: pb::VolumeFsVersion::try_from(volume.api_version).unwrap_or_default(),
            ..Default::default()
        };
        if new.name.is_empty() {
            return Err(VolumeError::Name(new.name));
        }
        let record = rec::VolumeVersion {
            number: 1,
            created_at: self.clock.now(),
            reason: format!("fork of {} at {}", display_name(&volume), origin.number()),
            files: origin.record.files,
            bytes: origin.record.bytes,
            ..Default::default()
        };
        let id = ids::fresh(&crate::ids::SystemEntropy, "vo");
        self.found(&id, new, Some(Version::new(record, origin.stack))).await?;
        Ok((id, 1))
    }
}
