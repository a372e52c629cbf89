//! The history of a Volume: what was in it, what changed, and how to have it back.

use std::sync::Arc;

use homeport_content::{Change, ChangedDirectory, Delta, Layered, LeafKind, Seen, diff};
use homeport_meta::volume_versions;
use homeport_proto::client as pb;
use homeport_proto::record as rec;
use homeport_store::Root;

use super::catalog::{NewVolume, Volumes, first, is_word, layers};
use super::publish::{Draft, display_name};
use super::version::{Version, sql};
use super::{VolumeError, blocking};
use crate::ids;

/// A version, as a person reads of it.
#[derive(Debug, Clone)]
pub struct LogEntry {
    /// What is known of it.
    pub version: rec::VolumeVersion,
    /// Why it is kept whatever the policy says, for example `tag good` or `pinned by ta-…`; empty if it isn't.
    pub pinned_by: String,
}

/// What happened to a path between two versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiffKind {
    /// It was not there.
    Added,
    /// It was there, and is different.
    Changed,
    /// It is gone.
    Removed,
}

/// A path that differs between two versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffEntry {
    /// Without a leading slash.
    pub path: Vec<u8>,
    /// What happened.
    pub kind: DiffKind,
    /// Bytes before.
    pub old_size: u64,
    /// Bytes after.
    pub new_size: u64,
    /// Whether it is a directory; of one that is gone, whether it was.
    pub directory: bool,
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

    /// What is different in version `to` from version `from`. An empty `from` is the version before `to`.
    pub async fn diff(&self, volume_id: &str, from: &str, to: &str) -> Result<Vec<DiffEntry>, VolumeError> {
        let new = self.version(volume_id, to).await?;
        let old = if from.is_empty() {
            self.version_before(volume_id, new.number()).await?
        } else {
            self.version(volume_id, from).await?
        };
        let store = Arc::clone(&self.store);
        // Both may be dropped while they are read.
        let pin = self.store.pin(Root::of_stack(&old.stack).chain(Root::of_stack(&new.stack)));
        let entries = blocking(move || {
            let (old, new) = (layers(&store, &old.stack)?, layers(&store, &new.stack)?);
            Ok(entries(&old, &new, &diff(&old, &new)))
        });
        let entries = entries.await?;
        drop(pin);
        entries
    }

    /// The newest version below a number that is kept.
    async fn version_before(&self, volume_id: &str, number: u64) -> Result<Version, VolumeError> {
        let rows = volume_versions::list_after(&self.meta, volume_id, -1).await?;
        let before = rows.iter().rev().find(|row| row.number < sql(number));
        match before {
            Some(row) => Version::of_row(row),
            None => Ok(first(&*self.find(volume_id)?)),
        }
    }

    /// Makes what was in a version the newest one, or only some paths of it. Returns the number of the new version, or
    /// of the newest one if nothing is different.
    pub async fn restore(
        self: &Arc<Self>,
        volume_id: &str,
        spec: &str,
        paths: Vec<Vec<u8>>,
    ) -> Result<u64, VolumeError> {
        let _hold = self.store.hold();
        let entry = self.entry(volume_id)?;
        // Nothing is dropped while somebody has the turn.
        let _turn = entry.turn.lock().await;
        let old = self.version(volume_id, spec).await?;
        let (head, loaded) = self.load_head(&entry).await?;
        let (store, layered) = (Arc::clone(&self.store), Arc::clone(&loaded.layered));
        let (volume, number) = (display_name(&entry.now().record), old.number());
        let what = match paths.as_slice() {
            [] => format!("restore of {number}"),
            [one] => format!("restore of {} of {number}", String::from_utf8_lossy(one)),
            several => format!("restore of {} paths of {number}", several.len()),
        };
        let delta = blocking(move || {
            let old = layers(&store, &old.stack)?;
            let whole = diff(&layered, &old);
            if paths.is_empty() {
                return Ok(whole);
            }
            for path in &paths {
                if old.get(path).is_none() && layered.get(path).is_none() {
                    let path = String::from_utf8_lossy(path).into_owned();
                    return Err(VolumeError::NoPath { volume, version: number, path });
                }
            }
            Ok(restrict(&layered, &whole, &paths))
        })
        .await??;
        if delta.is_empty() && Some(&delta.root.metadata) == loaded.layered.get(b"").map(Seen::metadata) {
            return Ok(head.number());
        }
        let record = rec::VolumeVersion { reason: what, ..Default::default() };
        let draft = Draft { delta: Arc::new(delta), record, take: None, limited: false };
        Ok(self.append(&entry, loaded, draft).await?.number())
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

/// That part of a change that is at or below `paths`. Directories on the way there are as they are in `head`.
fn restrict(head: &Layered, whole: &Delta, paths: &[Vec<u8>]) -> Delta {
    let wanted: Vec<Vec<&[u8]>> = paths
        .iter()
        .map(|path| path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect())
        .collect();
    if wanted.iter().any(Vec::is_empty) {
        return whole.clone();
    }
    let mut part = Delta { root: whole.root.clone(), leaves: whole.leaves.clone() };
    if let Some(seen) = head.get(b"") {
        part.root.metadata = seen.metadata().clone();
    }
    let wanted: Vec<&[&[u8]]> = wanted.iter().map(Vec::as_slice).collect();
    keep_only(head, &mut Vec::new(), &mut part.root, &wanted);
    part
}

fn keep_only(head: &Layered, path: &mut Vec<u8>, directory: &mut ChangedDirectory, wanted: &[&[&[u8]]]) {
    directory.entries.retain(|name, change| {
        let below: Vec<&[&[u8]]> = wanted
            .iter()
            .filter_map(|parts| parts.split_first())
            .filter(|(first, _)| **first == &name[..])
            .map(|(_, rest)| rest)
            .collect();
        if below.iter().any(|rest| rest.is_empty()) {
            return true;
        }
        // Of a leaf on the way there is nothing below to be had.
        let Change::Directory(inner) = change else { return false };
        if below.is_empty() {
            return false;
        }
        let length = path.len();
        if length > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        if let Some(Seen::Directory(metadata)) = head.get(path) {
            inner.metadata = metadata.clone();
        }
        keep_only(head, path, inner, &below);
        path.truncate(length);
        !inner.entries.is_empty()
    });
}

/// A difference as a list.
fn entries(old: &Layered, new: &Layered, delta: &Delta) -> Vec<DiffEntry> {
    let mut entries = Vec::new();
    for (path, change) in delta.walk() {
        let (before, after) = (old.get(&path), new.get(&path));
        let directory = matches!(after.or(before), Some(Seen::Directory(_)));
        let kind = match (before, change) {
            (_, Change::Removed) => DiffKind::Removed,
            (None, _) => DiffKind::Added,
            // It leads to what changed, and is the same itself.
            (Some(Seen::Directory(before)), Change::Directory(after)) if *before == after.metadata => {
                continue;
            }
            (Some(_), _) => DiffKind::Changed,
        };
        let was_directory = matches!(before, Some(Seen::Directory(_)));
        entries.push(DiffEntry {
            kind,
            old_size: before.map_or(0, size),
            new_size: after.map_or(0, size),
            directory,
            path: path.clone(),
        });
        if was_directory && !matches!(change, Change::Directory(_)) {
            let gone = old.walk(&path).map(|(path, seen)| DiffEntry {
                path,
                kind: DiffKind::Removed,
                old_size: size(seen),
                new_size: 0,
                directory: matches!(seen, Seen::Directory(_)),
            });
            entries.extend(gone);
        }
    }
    entries
}

fn size(seen: Seen<'_>) -> u64 {
    match seen {
        Seen::Leaf { leaf, .. } => match &leaf.kind {
            LeafKind::File(content) => content.size(),
            _ => 0,
        },
        Seen::Directory(_) => 0,
    }
}
