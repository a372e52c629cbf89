//! Deleting what nobody will ask for again.

use std::time::{Duration, SystemTime};

use super::multipart::ignore_missing;
use super::{BlobId, BlobStore};

/// What a sweep deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Complete blobs.
    pub blobs: u64,
    /// Uploads that never ended.
    pub uploads: u64,
}

impl BlobStore {
    /// Deletes blobs older than `blob_age`, and uploads under way to which nothing was added for
    /// `upload_age`. Blocks on the disk. What vanishes meanwhile is no error.
    pub fn sweep(&self, blob_age: Duration, upload_age: Duration) -> std::io::Result<Swept> {
        let now = self.now();
        let mut swept = Swept::default();
        for entry in std::fs::read_dir(&self.options.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let (id, unfinished) = match name.split_once('.') {
                Some((id, _)) => (id, true),
                None => (name, false),
            };
            let Ok(id) = id.parse::<BlobId>() else {
                continue;
            };
            let path = entry.path();
            // The data of a multipart upload is written inside its directory, which keeps its own time.
            let touched = [path.join("data"), path.clone()]
                .iter()
                .find_map(|path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok());
            let Some(touched) = touched else { continue };
            if !older(now, touched, if unfinished { upload_age } else { blob_age }) {
                continue;
            }
            if path.is_dir() {
                ignore_missing(std::fs::remove_dir_all(&path))?;
                self.uploads.forget(&id);
            } else {
                ignore_missing(std::fs::remove_file(&path))?;
            }
            if unfinished {
                swept.uploads += 1;
            } else {
                swept.blobs += 1;
            }
        }
        Ok(swept)
    }

    /// What complete blobs, and those that are being uploaded, take on the disk.
    pub fn disk_usage(&self) -> (u64, u64) {
        let (mut complete, mut unfinished) = (0, 0);
        for entry in std::fs::read_dir(&self.options.directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| name.starts_with("bl-")) else { continue };
            let sum = if name.contains('.') { &mut unfinished } else { &mut complete };
            let inside = std::fs::read_dir(entry.path()).into_iter().flatten().flatten();
            let files = inside.filter_map(|inside| inside.metadata().ok()).chain(entry.metadata().ok());
            *sum += files.map(|found| std::os::unix::fs::MetadataExt::blocks(&found) * 512).sum::<u64>();
        }
        (complete, unfinished)
    }
}

fn older(now: SystemTime, touched: SystemTime, age: Duration) -> bool {
    now.duration_since(touched).is_ok_and(|passed| passed > age)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::blobs::BlobOptions;

    #[test]
    fn a_sweep_deletes_only_what_is_older_than_its_age() {
        const HOUR: Duration = Duration::from_secs(3600);
        let dir = tempfile::tempdir().unwrap();
        let open = |ahead| {
            BlobStore::open(BlobOptions::new(dir.path()), Arc::new(move || SystemTime::now() + ahead))
                .unwrap()
        };
        let store = open(Duration::ZERO);
        let id = store.put(b"x").unwrap();
        store.begin_part(&"bl-0123456789012345678901".parse().unwrap(), 1).unwrap().unwrap();

        assert_eq!(store.sweep(HOUR, HOUR).unwrap(), Swept::default());
        let (complete, unfinished) = store.disk_usage();
        assert!(complete > 0 && unfinished > 0, "{complete} {unfinished}");
        let later = open(2 * HOUR);
        assert_eq!(later.sweep(3 * HOUR, HOUR).unwrap(), Swept { blobs: 0, uploads: 1 });
        assert_eq!(later.length(&id).unwrap(), 1);
        assert_eq!(later.sweep(HOUR, HOUR).unwrap(), Swept { blobs: 1, uploads: 0 });
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 2, "only the signing key and the directory of blocks stay");
    }
}
