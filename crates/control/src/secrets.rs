//! Secrets: environment variables that users keep on the server for their containers.
//!
//! Values are sealed wherever they lie; they are open only in an order to a worker and in the container. Names and keys
//! of secrets are no secret.

mod error;
mod key;
#[cfg(test)]
mod tests;
mod variables;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use homeport_meta::{Meta, secrets};
use homeport_proto::record as rec;
use prost::Message as _;

pub(crate) use error::SecretError;
pub(crate) use variables::Variables;

use crate::clock::Clock;
use crate::ids::{self, SystemEntropy};
use crate::registry::{Millis, millis};
use key::Key;

/// The longest name.
const NAME_LIMIT: usize = 64;
/// How exactly the last use of a secret is kept.
const PRECISION: Millis = 60_000;
/// How long a secret without a name and an app is kept after its last use.
const FORGOTTEN_AFTER: Millis = 7 * 24 * 60 * 60 * 1000;
/// How long one of an app is kept that nothing refers to: a deployment may be on its way to refer to it.
const UNUSED_AFTER: Millis = 60 * 60 * 1000;

/// All secrets of a server.
pub(crate) struct Secrets {
    meta: Meta,
    clock: Arc<dyn Clock>,
    key_path: PathBuf,
    /// None when it is lost.
    key: Mutex<Option<Arc<Key>>>,
    entries: RwLock<HashMap<String, Arc<Entry>>>,
    /// Held while something is written, so that a name is given once and no change gets lost.
    writing: tokio::sync::Mutex<()>,
}

/// A secret as it is kept.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The record; what is in the secret is sealed in it.
    pub(crate) record: rec::Secret,
    used_at: AtomicI64,
}

/// A secret to be made.
#[derive(Debug, Clone, Default)]
pub(crate) struct NewSecret {
    pub(crate) id: String,
    /// Empty for one without a name.
    pub(crate) name: String,
    pub(crate) environment: String,
    /// The app that it ends with; empty if it lives by itself.
    pub(crate) app_id: String,
    pub(crate) created_by: String,
    pub(crate) variables: Variables,
}

/// What to do where a secret of the same name exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfExists {
    Keep,
    Overwrite,
    Fail,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").field("key_path", &self.key_path).finish_non_exhaustive()
    }
}

impl Entry {
    /// When a container got it last, in seconds since the epoch; 0 = never.
    pub(crate) fn used_at(&self) -> f64 {
        self.used_at.load(Ordering::Relaxed) as f64 / 1000.0
    }

    fn has_name(&self, name: &str, environment: &str) -> bool {
        !name.is_empty() && self.record.name == name && self.record.environment == environment
    }
}

impl Secrets {
    /// Reads all secrets, and the key, which is made where nothing was sealed before. Those of apps that `lives`
    /// doesn't know are removed.
    ///
    /// A lost key doesn't keep the server from starting: only what needs it fails.
    pub(crate) async fn load(
        meta: Meta,
        clock: Arc<dyn Clock>,
        key_path: PathBuf,
        lives: impl Fn(&str) -> bool,
    ) -> Result<Self, SecretError> {
        let mut entries = HashMap::new();
        for row in secrets::list(&meta).await? {
            let record = rec::Secret::decode(row.record.as_slice())
                .map_err(|_| SecretError::Record(row.id.clone()))?;
            if !record.app_id.is_empty() && !lives(&record.app_id) {
                secrets::delete(&meta, &row.id).await?;
                continue;
            }
            entries.insert(row.id, Arc::new(Entry { record, used_at: AtomicI64::new(row.used_at) }));
        }
        let key = match Key::load(&key_path)? {
            Some(key) => Some(Arc::new(key)),
            None if entries.is_empty() => Some(Arc::new(Key::create(&key_path, &SystemEntropy)?)),
            None => {
                let error = SecretError::KeyLost { path: key_path.clone() };
                tracing::error!(secrets = entries.len(), "{error}");
                None
            }
        };
        Ok(Self {
            meta,
            clock,
            key_path,
            key: Mutex::new(key),
            entries: RwLock::new(entries),
            writing: tokio::sync::Mutex::default(),
        })
    }

    /// The secret `id`.
    pub(crate) fn find(&self, id: &str) -> Result<Arc<Entry>, SecretError> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(id).cloned().ok_or_else(|| SecretError::Missing(id.to_owned()))
    }

    /// The secret of this name.
    pub(crate) fn named(&self, name: &str, environment: &str) -> Result<Arc<Entry>, SecretError> {
        self.all().into_iter().find(|entry| entry.has_name(name, environment)).ok_or_else(|| {
            SecretError::Unknown { name: name.to_owned(), environment: environment.to_owned() }
        })
    }

    /// Those with a name, the newest first.
    pub(crate) fn list(&self, environment: &str) -> Vec<Arc<Entry>> {
        let mut found = self.all();
        found.retain(|entry| !entry.record.name.is_empty() && entry.record.environment == environment);
        found.sort_by(|a, b| b.record.created_at.total_cmp(&a.record.created_at));
        found
    }

    fn all(&self) -> Vec<Arc<Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Whether all of these exist; the first that doesn't is the error.
    pub(crate) fn check(&self, ids: &[String]) -> Result<(), SecretError> {
        ids.iter().try_for_each(|id| self.find(id).map(drop))
    }

    /// What is in these secrets; where two have the same name, the later one's value.
    pub(crate) fn environment(&self, ids: &[String]) -> Result<Variables, SecretError> {
        let mut variables = Variables::default();
        for id in ids {
            let entry = self.find(id)?;
            variables.extend(self.open(&entry.record)?);
            self.note_use(&entry);
        }
        Ok(variables)
    }

    /// Makes a secret with a name, or answers with the one of that name.
    pub(crate) async fn create_named(
        &self,
        new: NewSecret,
        if_exists: IfExists,
    ) -> Result<Arc<Entry>, SecretError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if new.name.is_empty() || new.name.len() > NAME_LIMIT || !new.name.chars().all(fits) {
            return Err(SecretError::Name(new.name));
        }
        let _writing = self.writing.lock().await;
        let Ok(known) = self.named(&new.name, &new.environment) else { return self.write(new).await };
        match if_exists {
            IfExists::Keep => Ok(known),
            // A repeated request finds what the first one made.
            IfExists::Fail if known.record.id == new.id => Ok(known),
            IfExists::Fail => Err(SecretError::Exists { name: new.name, environment: new.environment }),
            // Functions refer to it by its id, which therefore stays.
            IfExists::Overwrite => self.replace(&known, new.variables).await,
        }
    }

    /// Makes a secret without a name.
    pub(crate) async fn create_anonymous(&self, new: NewSecret) -> Result<Arc<Entry>, SecretError> {
        let _writing = self.writing.lock().await;
        if let Ok(known) = self.find(&new.id) {
            return Ok(known);
        }
        self.write(new).await
    }

    /// The id of an app's secret without a name: the same variables give the same one, so that a redeployment adds
    /// none.
    pub(crate) fn anonymous_id(&self, app_id: &str, variables: &Variables) -> Result<String, SecretError> {
        let pairs = variables.pairs().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
        let parts: Vec<&[u8]> = std::iter::once(app_id.as_bytes()).chain(pairs).collect();
        Ok(ids::derived("st", &[&self.key()?.digest(&parts)]))
    }

    /// Sets some variables of a secret and takes others out.
    pub(crate) async fn update(
        &self,
        id: &str,
        set: Variables,
        removed: &[String],
    ) -> Result<(), SecretError> {
        let _writing = self.writing.lock().await;
        let known = self.find(id)?;
        let mut variables = self.open(&known.record)?;
        variables.remove(removed);
        variables.extend(set);
        self.replace(&known, Variables::checked(variables)?).await.map(drop)
    }

    /// Deletes a secret. Containers that have it keep it; new ones of functions that name it don't start.
    pub(crate) async fn delete(&self, id: &str) -> Result<(), SecretError> {
        let _writing = self.writing.lock().await;
        secrets::delete(&self.meta, id).await?;
        self.entries.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        Ok(())
    }

    /// Deletes those of an app that has ended.
    pub(crate) async fn delete_of_app(&self, app_id: &str) -> Result<(), SecretError> {
        self.delete_where(|entry| entry.record.app_id == app_id).await
    }

    /// Deletes those of an app that nothing of it refers to any more.
    pub(crate) async fn prune_app(&self, app_id: &str, needed: &HashSet<String>) -> Result<(), SecretError> {
        let before = millis(self.clock.now()) - UNUSED_AFTER;
        self.delete_where(|entry| {
            let record = &entry.record;
            record.app_id == app_id && !needed.contains(&record.id) && millis(record.created_at) < before
        })
        .await
    }

    /// Deletes those without a name and an app that no container got for long.
    pub(crate) async fn forget_old(&self) -> Result<(), SecretError> {
        let before = millis(self.clock.now()) - FORGOTTEN_AFTER;
        self.delete_where(|entry| {
            let record = &entry.record;
            let last = millis(record.created_at).max(entry.used_at.load(Ordering::Relaxed));
            record.name.is_empty() && record.app_id.is_empty() && last < before
        })
        .await
    }

    async fn delete_where(&self, goes: impl Fn(&Entry) -> bool) -> Result<(), SecretError> {
        for entry in self.all().iter().filter(|entry| goes(entry)) {
            self.delete(&entry.record.id).await?;
        }
        Ok(())
    }

    async fn write(&self, new: NewSecret) -> Result<Arc<Entry>, SecretError> {
        let record = rec::Secret {
            id: new.id,
            name: new.name,
            environment: new.environment,
            app_id: new.app_id,
            created_at: self.clock.now(),
            created_by: new.created_by,
            ..Default::default()
        };
        self.put(record, new.variables, 0).await
    }

    async fn replace(&self, known: &Entry, variables: Variables) -> Result<Arc<Entry>, SecretError> {
        self.put(known.record.clone(), variables, known.used_at.load(Ordering::Relaxed)).await
    }

    async fn put(
        &self,
        mut record: rec::Secret,
        variables: Variables,
        used_at: Millis,
    ) -> Result<Arc<Entry>, SecretError> {
        let key = self.key()?;
        record.keys = variables.names();
        let plain = rec::SecretValues::from(variables).encode_to_vec();
        record.sealed = key.seal(&record.id, plain, &SystemEntropy)?.into();
        let row = secrets::Secret {
            id: record.id.clone(),
            environment: record.environment.clone(),
            name: record.name.clone(),
            app_id: record.app_id.clone(),
            created_at: millis(record.created_at),
            used_at,
            record: record.encode_to_vec(),
        };
        secrets::put(&self.meta, &row).await?;
        let entry = Arc::new(Entry { record, used_at: AtomicI64::new(used_at) });
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.insert(row.id, Arc::clone(&entry));
        Ok(entry)
    }

    fn open(&self, record: &rec::Secret) -> Result<Variables, SecretError> {
        let plain = self.key()?.open(&record.id, &record.sealed)?;
        let values = rec::SecretValues::decode(plain.as_slice())
            .map_err(|_| SecretError::Record(record.id.clone()))?;
        Ok(values.into())
    }

    /// The key. A lost one is replaced once nothing is sealed with it any more.
    fn key(&self) -> Result<Arc<Key>, SecretError> {
        let mut key = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = &*key {
            return Ok(Arc::clone(key));
        }
        let found = match Key::load(&self.key_path)? {
            Some(found) => found,
            None if self.all().is_empty() => Key::create(&self.key_path, &SystemEntropy)?,
            None => return Err(SecretError::KeyLost { path: self.key_path.clone() }),
        };
        Ok(Arc::clone(key.insert(Arc::new(found))))
    }

    fn note_use(&self, entry: &Entry) {
        let now = millis(self.clock.now());
        if now - entry.used_at.load(Ordering::Relaxed) < PRECISION {
            return;
        }
        entry.used_at.store(now, Ordering::Relaxed);
        let (meta, id) = (self.meta.clone(), entry.record.id.clone());
        tokio::spawn(async move {
            if let Err(error) = secrets::touch(&meta, &id, now).await {
                tracing::warn!(%error, secret = id, "the last use of a secret could not be noted");
            }
        });
    }
}
