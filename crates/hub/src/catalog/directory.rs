//! A catalog as a directory of JSON files, one for each model.
//!
//! A server and a command-line import in another process may use one directory at once: changes
//! are made under a file lock, and readers need none because files are replaced as a whole.
//! Parsed records are remembered until their file is another one: a client asks for a model once
//! for each of its files, and a record grows with the model's history.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use rustix::fs::{FlockOperation, flock};

use super::{CatalogError, ModelCatalog};
use crate::record::{FORMAT, ModelRecord};
use crate::repo::RepoId;

const LOCK_FILE: &str = ".lock";
const RECORD_ENDING: &str = ".json";

/// File systems stamp changes by ticks of up to 10 ms, in which a second file could get the
/// number and stamp of a first. A record is remembered once its file is older than that.
const SETTLED: Duration = Duration::from_millis(50);

/// Models as `ORG--NAME.json` files in a directory.
#[derive(Debug, Clone)]
pub struct DirectoryCatalog {
    directory: PathBuf,
    parsed: Arc<Mutex<HashMap<PathBuf, Parsed>>>,
}

/// A record with what told its file apart from the others of that name.
#[derive(Debug, Clone)]
struct Parsed {
    stamp: Stamp,
    record: Arc<ModelRecord>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn is_settled(&self) -> bool {
        let (seconds, nanos) = self.changed;
        let since_1970 = Duration::new(
            u64::try_from(seconds).unwrap_or_default(),
            u32::try_from(nanos).unwrap_or_default(),
        );
        let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + since_1970);
        age.is_ok_and(|age| age > SETTLED)
    }
}

impl DirectoryCatalog {
    /// The catalog in `directory`, which is made if it is missing (its parent is not).
    pub fn open(directory: &Path) -> Result<DirectoryCatalog, CatalogError> {
        match fs::create_dir(directory) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(source) => return Err(io("make", directory, source)),
        }
        if let Some(parent) = directory.parent() {
            sync_directory(parent)?;
        }
        Ok(DirectoryCatalog { directory: directory.to_owned(), parsed: Arc::default() })
    }

    fn path_of(&self, repo: &RepoId) -> PathBuf {
        let stem = repo.as_str().replace('/', "--");
        self.directory.join(format!("{stem}{RECORD_ENDING}"))
    }

    fn read(&self, repo: &RepoId) -> Result<Option<Arc<ModelRecord>>, CatalogError> {
        self.read_file(&self.path_of(repo))
    }

    fn read_file(&self, path: &Path) -> Result<Option<Arc<ModelRecord>>, CatalogError> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.parsed().remove(path);
                return Ok(None);
            }
            Err(source) => return Err(io("open", path, source)),
        };
        let found = file.metadata().map_err(|e| io("look at", path, e))?;
        let stamp =
            Stamp { inode: found.ino(), bytes: found.len(), changed: (found.ctime(), found.ctime_nsec()) };
        if let Some(known) = self.parsed().get(path).filter(|known| known.stamp == stamp) {
            return Ok(Some(known.record.clone()));
        }
        let mut json = Vec::new();
        file.read_to_end(&mut json).map_err(|e| io("read", path, e))?;
        let record = Arc::new(parse(&json, path)?);
        if stamp.is_settled() {
            let parsed = Parsed { stamp, record: record.clone() };
            self.parsed().insert(path.to_owned(), parsed);
        }
        Ok(Some(record))
    }

    fn parsed(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Parsed>> {
        self.parsed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_all(&self) -> Result<Vec<Arc<ModelRecord>>, CatalogError> {
        let mut records = Vec::new();
        let entries = fs::read_dir(&self.directory).map_err(|e| io("list", &self.directory, e))?;
        for entry in entries {
            let entry = entry.map_err(|e| io("list", &self.directory, e))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            // The lock and unfinished writes begin with a dot, which no record does.
            if name.starts_with('.') || !name.ends_with(RECORD_ENDING) {
                continue;
            }
            // It may have been removed since the directory was read.
            records.extend(self.read_file(&entry.path())?);
        }
        records.sort_by(|a, b| a.repo.cmp(&b.repo));
        Ok(records)
    }

    fn write(&self, record: &ModelRecord) -> Result<(), CatalogError> {
        let _lock = self.lock()?;
        let path = self.path_of(&record.repo);
        let stored = self.read(&record.repo)?.map_or(0, |stored| stored.version);
        if record.version != stored + 1 {
            return Err(CatalogError::Conflict {
                repo: record.repo.clone(),
                stored,
                offered: record.version,
            });
        }
        let json =
            serde_json::to_vec_pretty(record).map_err(|error| CatalogError::Internal(error.to_string()))?;
        let mut file = tempfile::Builder::new()
            .prefix(".writing-")
            .tempfile_in(&self.directory)
            .map_err(|e| io("make a file in", &self.directory, e))?;
        file.write_all(&json).map_err(|e| io("write", &path, e))?;
        file.as_file().sync_all().map_err(|e| io("sync", &path, e))?;
        file.persist(&path).map_err(|e| io("replace", &path, e.error))?;
        sync_directory(&self.directory)
    }

    fn delete(&self, repo: &RepoId) -> Result<bool, CatalogError> {
        let _lock = self.lock()?;
        let path = self.path_of(repo);
        match fs::remove_file(&path) {
            Ok(()) => sync_directory(&self.directory).map(|()| true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(source) => Err(io("remove", &path, source)),
        }
    }

    /// Waits for the lock; it is released when the file is closed.
    fn lock(&self) -> Result<File, CatalogError> {
        let path = self.directory.join(LOCK_FILE);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| io("open", &path, e))?;
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io("lock", &path, error.into())),
            }
        }
    }

    /// Runs blocking file work off the threads that serve connections.
    async fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(DirectoryCatalog) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let catalog = self.clone();
        tokio::task::spawn_blocking(move || work(catalog))
            .await
            .map_err(|error| CatalogError::Internal(error.to_string()))?
    }
}

#[async_trait]
impl ModelCatalog for DirectoryCatalog {
    async fn get(&self, repo: &RepoId) -> Result<Option<Arc<ModelRecord>>, CatalogError> {
        let repo = repo.clone();
        self.off_thread(move |catalog| catalog.read(&repo)).await
    }

    async fn list(&self) -> Result<Vec<Arc<ModelRecord>>, CatalogError> {
        self.off_thread(|catalog| catalog.read_all()).await
    }

    async fn put(&self, record: &ModelRecord) -> Result<(), CatalogError> {
        let record = record.clone();
        self.off_thread(move |catalog| catalog.write(&record)).await
    }

    async fn remove(&self, repo: &RepoId) -> Result<bool, CatalogError> {
        let repo = repo.clone();
        self.off_thread(move |catalog| catalog.delete(&repo)).await
    }
}

fn parse(json: &[u8], path: &Path) -> Result<ModelRecord, CatalogError> {
    let unreadable = |reason: String| CatalogError::Unreadable { path: path.to_owned(), reason };
    let record: ModelRecord = serde_json::from_slice(json).map_err(|error| unreadable(error.to_string()))?;
    if record.format != FORMAT {
        let format = record.format;
        return Err(unreadable(format!("it has format {format}, {FORMAT} is known here")));
    }
    Ok(record)
}

fn sync_directory(directory: &Path) -> Result<(), CatalogError> {
    let path = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(path).and_then(|file| file.sync_all()).map_err(|e| io("sync", path, e))
}

fn io(action: &'static str, path: &Path, source: std::io::Error) -> CatalogError {
    CatalogError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record_of;

    fn catalog() -> (tempfile::TempDir, DirectoryCatalog) {
        let parent = tempfile::tempdir().unwrap();
        let catalog = DirectoryCatalog::open(&parent.path().join("models")).unwrap();
        (parent, catalog)
    }

    #[tokio::test]
    async fn records_survive_reopening_and_are_listed_by_name() {
        let (parent, catalog) = catalog();
        let (b, a) = (record_of("b", &[b"1"]), record_of("a/x", &[b"1", b"2"]));
        catalog.put(&b).await.unwrap();
        catalog.put(&a).await.unwrap();
        let reopened = DirectoryCatalog::open(&parent.path().join("models")).unwrap();
        assert_eq!(reopened.get(&a.repo).await.unwrap().as_deref(), Some(&a));
        let listed = reopened.list().await.unwrap();
        assert_eq!(listed, [Arc::new(a.clone()), Arc::new(b)]);
        assert!(reopened.remove(&a.repo).await.unwrap());
        assert!(!reopened.remove(&a.repo).await.unwrap());
        assert_eq!(reopened.get(&a.repo).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_put_over_a_version_that_it_has_not_seen_is_a_conflict() {
        let (_parent, catalog) = catalog();
        let mut record = record_of("a/b", &[b"1"]);
        catalog.put(&record).await.unwrap();
        let refused = catalog.put(&record).await.unwrap_err();
        assert!(matches!(refused, CatalogError::Conflict { stored: 1, offered: 1, .. }), "{refused}");
        record.version = 2;
        catalog.put(&record).await.unwrap();
    }

    #[tokio::test]
    async fn a_change_by_another_process_is_seen_at_once() {
        let (parent, catalog) = catalog();
        let other = DirectoryCatalog::open(&parent.path().join("models")).unwrap();
        let mut record = record_of("a/b", &[b"1"]);
        for version in 1..20 {
            record.version = version;
            other.put(&record).await.unwrap();
            let seen = catalog.get(&record.repo).await.unwrap().unwrap();
            assert_eq!(seen.version, version);
        }
        tokio::time::sleep(SETTLED * 2).await;
        let seen = catalog.get(&record.repo).await.unwrap().unwrap();
        let again = catalog.get(&record.repo).await.unwrap().unwrap();
        assert!(Arc::ptr_eq(&seen, &again));
        other.remove(&record.repo).await.unwrap();
        assert_eq!(catalog.get(&record.repo).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_damaged_or_newer_record_is_an_error_that_names_its_file() {
        let (parent, catalog) = catalog();
        let path = parent.path().join("models/a--b.json");
        let mut record = record_of("a/b", &[b"1"]);
        record.format = FORMAT + 1;
        for content in [b"{".to_vec(), serde_json::to_vec(&record).unwrap()] {
            fs::write(&path, content).unwrap();
            let refused = catalog.get(&record.repo).await.unwrap_err();
            assert!(refused.to_string().contains("a--b.json"), "{refused}");
        }
    }
}
