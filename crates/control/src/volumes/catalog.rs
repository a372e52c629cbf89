//! Which Volumes there are.
//!
//! The record and the newest version of each are in memory and, before a write returns, in the database. Both are
//! replaced as a whole, so readers hold what they read without a lock.

use std::collections::{HashMap, HashSet};

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use homeport_content::{Stack, Tree};
use homeport_meta::{Meta, volume_versions, volumes};
use homeport_proto::client as pb;
use homeport_proto::record as rec;
use homeport_store::Store;
use prost::Message as _;

use super::containers::Containers;
use super::entry::Entry;
use super::retention::Retention;
use super::version::Version;
use super::{VolumeError, blocking};
use crate::clock::{Clock, Seconds};

/// The longest name.
const NAME_LIMIT: usize = 64;

/// All Volumes. Share it as `Arc<Volumes>`.
pub struct Volumes {
    pub(super) meta: Meta,
    pub(super) store: Arc<Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) containers: Containers,
    pub(super) retention: Retention,
    entries: RwLock<HashMap<String, Arc<Entry>>>,
    /// Held while a name is given away.
    pub(super) naming: tokio::sync::Mutex<()>,
    /// Ids that were deleted since the start: a repeated request is no mistake.
    deleted: Mutex<HashSet<String>>,
    /// When the clients of ephemeral ones were heard last.
    pub(super) heard: Mutex<HashMap<String, Seconds>>,
    /// When chores were done last.
    pub(super) chores: Mutex<[Seconds; 2]>,
}

impl std::fmt::Debug for Volumes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volumes").finish_non_exhaustive()
    }
}

/// A Volume to be made.
#[derive(Debug, Clone, Default)]
pub struct NewVolume {
    /// Empty for one without a name.
    pub name: String,
    /// Where the name belongs.
    pub environment: String,
    /// Which methods clients use for its files.
    pub api_version: pb::VolumeFsVersion,
    /// The app that it ends with; empty if it lives by itself.
    pub app_id: String,
    /// Whether it ends when its client is silent.
    pub ephemeral: bool,
}

impl Volumes {
    /// Reads which Volumes there are. Those of apps that `lives` doesn't know are removed.
    pub async fn load(
        meta: Meta,
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        lives: impl Fn(&str) -> bool,
    ) -> Result<Self, VolumeError> {
        let mut entries = HashMap::new();
        let mut heard = HashMap::new();
        let start = clock.now();
        for row in volumes::list(&meta).await? {
            let record = rec::Volume::decode(row.record.as_slice())
                .map_err(|error| VolumeError::Record { id: row.id.clone(), reason: error.to_string() })?;
            if !record.app_id.is_empty() && !lives(&record.app_id) {
                volumes::delete(&meta, &row.id).await?;
                continue;
            }
            if record.ephemeral {
                heard.insert(row.id.clone(), start);
            }
            let head = match volume_versions::newest(&meta, &row.id).await? {
                Some(newest) => Version::of_row(&newest)?,
                None => first(&record),
            };
            entries.insert(row.id, Entry::new(record, head));
        }
        Ok(Self {
            meta,
            store,
            clock,
            containers: Containers::default(),
            retention: Retention::default(),
            entries: RwLock::new(entries),
            naming: tokio::sync::Mutex::default(),
            deleted: Mutex::default(),
            heard: Mutex::new(heard),
            chores: Mutex::new([start; 2]),
        })
    }

    /// Keeps so much of the history of Volumes that say nothing of their own.
    #[must_use]
    pub fn with_retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    pub(super) fn entry(&self, id: &str) -> Result<Arc<Entry>, VolumeError> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(id).cloned().ok_or_else(|| VolumeError::Missing(id.to_owned()))
    }

    pub(super) fn entries(&self) -> Vec<Arc<Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The Volume `id`.
    pub fn find(&self, id: &str) -> Result<Arc<rec::Volume>, VolumeError> {
        Ok(self.entry(id)?.now().record)
    }

    /// The newest version of a Volume.
    pub fn head(&self, id: &str) -> Result<Arc<Version>, VolumeError> {
        Ok(self.entry(id)?.now().head)
    }

    /// The Volume of this name.
    pub fn named(&self, name: &str, environment: &str) -> Result<Arc<rec::Volume>, VolumeError> {
        self.list(environment).into_iter().find(|volume| volume.name == name).ok_or_else(|| {
            VolumeError::Unknown { name: name.to_owned(), environment: environment.to_owned() }
        })
    }

    /// The Volumes with a name in an environment, newest first.
    pub fn list(&self, environment: &str) -> Vec<Arc<rec::Volume>> {
        let mut named: Vec<_> = self
            .entries()
            .iter()
            .map(|entry| entry.now().record)
            .filter(|volume| !volume.name.is_empty() && volume.environment == environment)
            .collect();
        named.sort_by(|a, b| b.created_at.total_cmp(&a.created_at));
        named
    }

    /// Makes a Volume. A name is given once in its environment.
    pub async fn create(&self, id: &str, new: NewVolume) -> Result<Arc<rec::Volume>, VolumeError> {
        self.found(id, new, None).await
    }

    /// Makes a Volume, with a first version if one is given.
    pub(super) async fn found(
        &self,
        id: &str,
        new: NewVolume,
        version: Option<Version>,
    ) -> Result<Arc<rec::Volume>, VolumeError> {
        let _naming = self.naming.lock().await;
        if let Ok(existing) = self.find(id) {
            return Ok(existing);
        }
        self.check_name(&new.name, &new.environment, new.name.is_empty())?;
        let record = rec::Volume {
            id: id.to_owned(),
            name: new.name,
            environment: new.environment,
            api_version: new.api_version.into(),
            created_at: self.unique_time(),
            app_id: new.app_id,
            ephemeral: new.ephemeral,
            ..Default::default()
        };
        let store = Arc::clone(&self.store);
        blocking(move || store.put_tree(&Tree::default())).await??;
        match &version {
            Some(version) => volume_versions::found(&self.meta, &row(&record), &version.row(id)).await?,
            None => volumes::put(&self.meta, &row(&record)).await?,
        }
        if record.ephemeral {
            self.beat(id);
        }
        let head = version.unwrap_or_else(|| first(&record));
        let entry = Entry::new(record, head);
        let record = entry.now().record;
        self.entries.write().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), entry);
        Ok(record)
    }

    /// Deletes a Volume with its history. False if it was deleted before. Containers that have it mounted keep what
    /// they see until they end.
    pub async fn delete(&self, id: &str) -> Result<bool, VolumeError> {
        let _naming = self.naming.lock().await;
        let entry = match self.entry(id) {
            Ok(entry) => entry,
            Err(_) if lock(&self.deleted).contains(id) => return Ok(false),
            Err(error) => return Err(error),
        };
        // What is being committed is committed before.
        let _turn = entry.turn.lock().await;
        volumes::delete(&self.meta, id).await?;
        self.entries.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        lock(&self.deleted).insert(id.to_owned());
        lock(&self.heard).remove(id);
        Ok(true)
    }

    /// How many containers have a Volume mounted.
    pub fn mounted(&self, id: &str) -> usize {
        self.containers.mounts_of(id)
    }

    /// Deletes the Volumes that end with an app.
    pub async fn delete_of_app(&self, app_id: &str) -> Result<(), VolumeError> {
        for entry in self.entries() {
            let record = entry.now().record;
            if record.app_id == app_id {
                self.delete(&record.id).await?;
            }
        }
        Ok(())
    }

    /// The container of a task has gone, or never came.
    pub(crate) fn unmount(&self, task_id: &str) {
        self.containers.unmount(task_id);
    }

    /// A worker is gone: those who wait for it don't any more.
    pub(crate) fn worker_gone(&self, worker_id: &str) {
        self.containers.worker_gone(worker_id);
    }

    pub(super) fn check_name(
        &self,
        name: &str,
        environment: &str,
        nameless: bool,
    ) -> Result<(), VolumeError> {
        if nameless {
            return Ok(());
        }
        if !is_word(name) {
            return Err(VolumeError::Name(name.to_owned()));
        }
        match self.named(name, environment) {
            Ok(_) => Err(VolumeError::Exists { name: name.to_owned(), environment: environment.to_owned() }),
            Err(_) => Ok(()),
        }
    }

    /// Now, later than the time of any other Volume: clients read lists on from a time.
    fn unique_time(&self) -> Seconds {
        let entries = self.entries();
        let latest = entries.iter().map(|entry| entry.now().record.created_at).fold(0.0, f64::max);
        self.clock.now().max(latest + 1e-6)
    }
}

/// Version 0: nothing is in it.
pub(super) fn first(record: &rec::Volume) -> Version {
    let version = rec::VolumeVersion { created_at: record.created_at, ..Default::default() };
    Version::new(version, Stack::of(Tree::default().id()))
}

/// Whether it can be a name or a tag.
pub(super) fn is_word(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=NAME_LIMIT).contains(&text.len()) && text.bytes().all(is_letter)
}

pub(super) fn row(record: &rec::Volume) -> volumes::Volume {
    volumes::Volume {
        id: record.id.clone(),
        name: record.name.clone(),
        environment: record.environment.clone(),
        created_at: (record.created_at * 1000.0) as i64,
        record: record.encode_to_vec(),
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Each change is one call on a table, so a panic elsewhere leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
