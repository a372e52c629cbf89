//! Network file systems: directories that containers share live, without versions.
//!
//! The older sibling of Volumes. What one container writes the others see at once, as on one disk;
//! there is nothing to commit and nothing to bring back.

mod directory;
mod glob;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use homeport_meta::{Meta, objects};
use homeport_proto::record as rec;
use prost::Message as _;

pub(crate) use directory::{Directory, FileError, Found};

use crate::clock::Seconds;
use crate::control::Control;
use crate::registry::RegistryError;

const KIND: &str = "network_file_system";
/// Seconds without a sign of life after which an ephemeral one is removed; clients give one every 300.
const SILENCE: Seconds = 900.0;

/// All network file systems of a server.
#[derive(Debug)]
pub struct NetworkFiles {
    meta: Meta,
    dir: PathBuf,
    records: Mutex<HashMap<String, Arc<rec::NetworkFileSystem>>>,
    heartbeats: Mutex<HashMap<String, Seconds>>,
}

impl NetworkFiles {
    /// Reads what exists. `dir` holds their directories and is made with the first of them.
    pub(crate) async fn load(meta: Meta, dir: PathBuf) -> Result<Self, RegistryError> {
        let mut records = HashMap::new();
        let mut heartbeats = HashMap::new();
        for row in objects::list_by_kind(&meta, KIND).await? {
            let record = rec::NetworkFileSystem::decode(row.record.as_slice())
                .map_err(|source| RegistryError::Record { id: row.id.clone(), source })?;
            if record.name.is_empty() {
                // Its client may have lived through the restart: it gets the whole time again.
                heartbeats.insert(row.id.clone(), 0.0);
            }
            records.insert(row.id, Arc::new(record));
        }
        Ok(Self { meta, dir, records: Mutex::new(records), heartbeats: Mutex::new(heartbeats) })
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<rec::NetworkFileSystem>> {
        lock(&self.records).get(id).cloned()
    }

    pub(crate) fn named(&self, name: &str, environment: &str) -> Option<Arc<rec::NetworkFileSystem>> {
        let records = lock(&self.records);
        records.values().find(|record| record.name == name && record.environment == environment).cloned()
    }

    /// Those with a name, the oldest first.
    pub(crate) fn list(&self, environment: &str) -> Vec<Arc<rec::NetworkFileSystem>> {
        let mut found: Vec<_> = lock(&self.records)
            .values()
            .filter(|record| record.environment == environment && !record.name.is_empty())
            .cloned()
            .collect();
        found.sort_by(|a, b| a.created_at.total_cmp(&b.created_at).then_with(|| a.name.cmp(&b.name)));
        found
    }

    /// Makes the directory, then the record.
    pub(crate) async fn create(&self, record: rec::NetworkFileSystem) -> Result<(), CreateError> {
        let path = self.path(&record.id);
        std::fs::create_dir_all(&path)
            .map_err(|source| CreateError::Directory { path: path.clone(), source })?;
        let object = objects::Object {
            id: record.id.clone(),
            kind: KIND.to_owned(),
            app_id: String::new(),
            name: format!("{}/{}", record.environment, record.name),
            record: record.encode_to_vec(),
        };
        objects::put(&self.meta, &object).await.map_err(RegistryError::from)?;
        if record.name.is_empty() {
            lock(&self.heartbeats).insert(record.id.clone(), record.created_at);
        }
        lock(&self.records).insert(record.id.clone(), Arc::new(record));
        Ok(())
    }

    /// Removes the record, then the files. Containers that have them mounted keep them until they end.
    pub(crate) async fn delete(&self, id: &str) -> Result<(), RegistryError> {
        objects::delete(&self.meta, id).await?;
        lock(&self.records).remove(id);
        lock(&self.heartbeats).remove(id);
        let path = self.path(id);
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %path.display(), "files of a deleted network file system stay");
            }
            _ => {}
        }
        Ok(())
    }

    /// Its files.
    pub(crate) fn open(&self, id: &str) -> Result<Directory, FileError> {
        Directory::open(&self.path(id))
    }

    /// A sign of life of an ephemeral one's client.
    pub(crate) fn beat(&self, id: &str, now: Seconds) {
        if let Some(last) = lock(&self.heartbeats).get_mut(id) {
            *last = now;
        }
    }

    /// Ephemeral ones whose client is gone.
    pub(crate) fn silent(&self, now: Seconds) -> Vec<String> {
        let mut silent = Vec::new();
        for (id, last) in lock(&self.heartbeats).iter_mut() {
            if *last == 0.0 {
                *last = now;
            } else if now - *last > SILENCE {
                silent.push(id.clone());
            }
        }
        silent
    }

    fn path(&self, id: &str) -> PathBuf {
        self.dir.join(id)
    }
}

impl Control {
    /// Removes ephemeral network file systems whose client has gone.
    pub(crate) async fn end_abandoned_network_files(&self) {
        for id in self.network_files.silent(self.clock.now()) {
            if let Err(error) = self.network_files.delete(&id).await {
                tracing::warn!(%error, id, "an abandoned network file system could not be removed");
            }
        }
    }
}

/// Why a network file system could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Its directory could not be made.
    #[error("cannot make the directory {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It could not be recorded.
    #[error(transparent)]
    Record(#[from] RegistryError),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one call on a map, so a panic elsewhere leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
