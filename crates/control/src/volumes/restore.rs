//! Having back what was in a version.

use std::sync::Arc;

use homeport_content::{Change, ChangedDirectory, Delta, Layered, Seen, diff};
use homeport_proto::record as rec;

use super::catalog::Volumes;
use super::entry::layers;
use super::publish::{Draft, display_name, is_nothing};
use super::{VolumeError, blocking};

impl Volumes {
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
        if is_nothing(&loaded.layered, &delta) {
            return Ok(head.number());
        }
        let record = rec::VolumeVersion { reason: what, ..Default::default() };
        let draft = Draft { delta: Arc::new(delta), record, take: None, limited: false };
        Ok(self.append(&entry, loaded, draft).await?.number())
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
