//! Remembers which snapshot an image became.
//!
//! A record is a hint: it counts only while the store has the snapshot, and one that can't be read is
//! as good as none.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use homeport_content::{Digest, SnapshotId};
use homeport_store::Store;
use serde::{Deserialize, Serialize};

use crate::config::ImageConfig;

/// A directory of records.
#[derive(Debug)]
pub struct Records {
    dir: PathBuf,
    /// Held while a record is used or dropped, so that none is both.
    turn: Mutex<()>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    /// What the record is about, in full: its name is only a digest of that.
    about: String,
    snapshot: SnapshotId,
    config: ImageConfig,
    /// Seconds since 1970.
    made_at: u64,
}

impl Records {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, turn: Mutex::default() }
    }

    /// The image recorded for `about`, if it is younger than `max_age` and still in the store.
    pub(super) fn find(
        &self,
        store: &Store,
        about: &str,
        max_age: Option<Duration>,
    ) -> Option<(SnapshotId, ImageConfig)> {
        let path = self.path(about);
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let record: Record = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
        let is_young = max_age.is_none_or(|max_age| {
            now().checked_sub(record.made_at).is_some_and(|age| age < max_age.as_secs())
        });
        let is_here = record.about == about && store.contains_tree(&record.snapshot);
        if !is_young || !is_here {
            return None;
        }
        // What cannot be noted as used could be dropped before it is.
        File::options().write(true).open(&path).and_then(|file| file.set_modified(SystemTime::now())).ok()?;
        Some((record.snapshot, record.config))
    }

    /// The snapshots of all records that were used within `max_idle`; the other records are dropped.
    pub(super) fn in_use(&self, max_idle: Duration) -> Vec<(String, SnapshotId)> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let used = entry.metadata().and_then(|metadata| metadata.modified());
            let is_idle = used.is_ok_and(|used| used.elapsed().is_ok_and(|idle| idle > max_idle));
            let read = std::fs::read(entry.path()).ok();
            let record: Option<Record> = read.and_then(|text| serde_json::from_slice(&text).ok());
            match record {
                Some(record) if !is_idle || std::fs::remove_file(entry.path()).is_err() => {
                    found.push((record.about, record.snapshot));
                }
                _ => {}
            }
        }
        found
    }

    /// Records what `about` became. The snapshot must be durable.
    pub(super) fn put(
        &self,
        about: &str,
        snapshot: SnapshotId,
        config: &ImageConfig,
    ) -> Result<(), (PathBuf, std::io::Error)> {
        let record = Record { about: about.to_owned(), snapshot, config: config.clone(), made_at: now() };
        let path = self.path(about);
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(&self.dir)?;
            let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
            file.write_all(&serde_json::to_vec(&record)?)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        write().map_err(|error| (path.clone(), error))
    }

    fn path(&self, about: &str) -> PathBuf {
        self.dir.join(format!("{}.json", Digest::of(about.as_bytes())))
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use homeport_content::Tree;

    use super::*;

    #[test]
    fn record_counts_while_young_and_while_its_snapshot_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        let records = Records::new(directory.path().join("records"));
        let config = ImageConfig::default();
        let missing = Digest::of(b"nothing");
        records.put("gone", missing, &config).unwrap();
        assert_eq!(records.find(&store, "gone", None), None);
        let snapshot = store.put_tree(&Tree::default()).unwrap();
        records.put("here", snapshot, &config).unwrap();
        assert_eq!(records.find(&store, "here", None), Some((snapshot, config.clone())));
        assert_eq!(records.find(&store, "here", Some(Duration::from_secs(1000))), Some((snapshot, config)));
        assert_eq!(records.find(&store, "here", Some(Duration::ZERO)), None);
        assert_eq!(records.find(&store, "elsewhere", None), None);
    }

    #[test]
    fn record_that_is_used_stays_and_another_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        let records = Records::new(directory.path().join("records"));
        let config = ImageConfig::default();
        let snapshot = store.put_tree(&Tree::default()).unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(1000);
        for about in ["used", "idle"] {
            records.put(about, snapshot, &config).unwrap();
            File::options().write(true).open(records.path(about)).unwrap().set_modified(long_ago).unwrap();
        }
        records.find(&store, "used", None).unwrap();
        assert_eq!(records.in_use(Duration::from_secs(2000)).len(), 2);
        assert_eq!(records.in_use(Duration::from_secs(500)), [("used".to_owned(), snapshot)]);
        assert_eq!(records.find(&store, "idle", None), None);
    }
}
