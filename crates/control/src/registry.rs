//! What exists: apps, functions, classes, mounts, images.
//!
//! Every record is in memory and, before a write returns, in the database. Records are replaced as
//! a whole and never change in place, so readers hold what they read without a lock.

mod bound;
mod history;
mod image_names;
mod uses;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use homeport_meta::{Meta, QueryError, apps, images, objects};
use homeport_proto::client as pb;
use homeport_proto::record as rec;
use prost::Message as _;

pub(crate) use uses::{Millis, Unused, millis};

use crate::clock::Clock;
use history::History;
use uses::Uses;

/// Why the registry could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The database refused.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A row holds something that isn't its record.
    #[error("the database row of {id} is damaged: {source}")]
    Record {
        /// The object.
        id: String,
        /// Why.
        source: prost::DecodeError,
    },
    /// The Volumes could not be read.
    #[error(transparent)]
    Volumes(#[from] crate::volumes::VolumeError),
    /// The secrets could not be read.
    #[error(transparent)]
    Secrets(#[from] crate::secrets::SecretError),
}

type Table<T> = RwLock<HashMap<String, Arc<T>>>;

/// All records.
#[derive(Debug)]
pub struct Registry {
    meta: Meta,
    apps: Table<rec::App>,
    functions: Table<rec::Function>,
    classes: Table<rec::Class>,
    mounts: Table<rec::Mount>,
    images: Table<rec::Image>,
    image_names: Table<rec::ImageName>,
    history: History,
    /// Held while an app gets from one version to the next.
    pub(crate) publishing: tokio::sync::Mutex<()>,
    uses: Uses,
}

const FUNCTION: &str = "function";
const CLASS: &str = "class";
const MOUNT: &str = "mount";
const IMAGE_NAME: &str = "image name";
const READY: &str = "ready";

/// The states of apps whose objects are kept.
const LIVING: [pb::AppState; 6] = [
    pb::AppState::Ephemeral,
    pb::AppState::Detached,
    pb::AppState::DetachedDisconnected,
    pb::AppState::Deployed,
    pb::AppState::Initializing,
    pb::AppState::Stopping,
];

impl Registry {
    /// Reads all records.
    pub async fn load(meta: Meta, clock: Arc<dyn Clock>) -> Result<Self, RegistryError> {
        let mut app_records = HashMap::new();
        for state in LIVING {
            for row in apps::list_by_state(&meta, state.as_str_name()).await? {
                let record = decode::<rec::App>(&row.id, &row.record)?;
                app_records.insert(row.id, Arc::new(record));
            }
        }
        let mut image_records = HashMap::new();
        for row in images::list_by_state(&meta, READY).await? {
            let record = decode::<rec::Image>(&row.id, &row.record)?;
            image_records.insert(row.id, Arc::new(record));
        }
        let mut functions: HashMap<String, Arc<rec::Function>> = load_kind(&meta, FUNCTION).await?;
        for function in bound::kept_warm(&meta).await? {
            functions.insert(function.id.clone(), Arc::new(function));
        }
        let mut classes: HashMap<String, Arc<rec::Class>> = load_kind(&meta, CLASS).await?;
        // Objects of an app that ended just before a crash.
        let orphans: HashSet<String> = functions
            .values()
            .map(|function| function.app_id.clone())
            .chain(classes.values().map(|class| class.app_id.clone()))
            .filter(|app_id| !app_records.contains_key(app_id))
            .collect();
        for app_id in &orphans {
            objects::delete_by_app(&meta, app_id).await?;
        }
        functions.retain(|_, function| !orphans.contains(&function.app_id));
        classes.retain(|_, class| !orphans.contains(&class.app_id));
        let mounts: HashMap<String, Arc<rec::Mount>> = load_kind(&meta, MOUNT).await?;
        let image_names: HashMap<String, Arc<rec::ImageName>> = load_kind(&meta, IMAGE_NAME).await?;
        let is_known = |id: &str| image_records.contains_key(id) || mounts.contains_key(id);
        let uses = Uses::load(&meta, clock, is_known).await?;
        let history = history::load(&meta, |app_id| app_records.contains_key(app_id)).await?;
        Ok(Self {
            apps: RwLock::new(app_records),
            functions: RwLock::new(functions),
            classes: RwLock::new(classes),
            mounts: RwLock::new(mounts),
            images: RwLock::new(image_records),
            image_names: RwLock::new(image_names),
            history,
            publishing: tokio::sync::Mutex::default(),
            uses,
            meta,
        })
    }

    /// The database beneath.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The app `id`.
    pub fn app(&self, id: &str) -> Option<Arc<rec::App>> {
        read(&self.apps).get(id).cloned()
    }

    /// All apps that are known, ended ones as long as they are remembered.
    pub fn apps(&self) -> Vec<Arc<rec::App>> {
        read(&self.apps).values().cloned().collect()
    }

    /// The newest app that was deployed under `name` and has ended, as long as it is remembered.
    pub fn ended_app(&self, name: &str, environment: &str) -> Option<Arc<rec::App>> {
        read(&self.apps)
            .values()
            .filter(|app| {
                app.name == name
                    && app.environment == environment
                    && matches!(app.state(), pb::AppState::Stopping | pb::AppState::Stopped)
            })
            .max_by(|a, b| a.deployed_at.total_cmp(&b.deployed_at))
            .cloned()
    }

    /// The app that is deployed under `name`. After a crash between a deployment and the stop of
    /// the one before there can be two: the newer one counts.
    pub fn deployed_app(&self, name: &str, environment: &str) -> Option<Arc<rec::App>> {
        read(&self.apps)
            .values()
            .filter(|app| {
                app.name == name && app.environment == environment && app.state() == pb::AppState::Deployed
            })
            .max_by(|a, b| a.deployed_at.total_cmp(&b.deployed_at))
            .cloned()
    }

    /// Writes an app.
    pub async fn put_app(&self, app: rec::App) -> Result<Arc<rec::App>, RegistryError> {
        apps::put(&self.meta, &app_row(&app)).await?;
        Ok(insert(&self.apps, app.id.clone(), app))
    }

    /// Drops what belonged to an app that has ended; the app itself stays listed.
    pub async fn clear_app(&self, app_id: &str) -> Result<(), RegistryError> {
        objects::delete_by_app(&self.meta, app_id).await?;
        self.forget_history(app_id).await?;
        write(&self.functions).retain(|_, function| function.app_id != app_id);
        write(&self.classes).retain(|_, class| class.app_id != app_id);
        Ok(())
    }

    /// The function `id`.
    pub fn function(&self, id: &str) -> Option<Arc<rec::Function>> {
        read(&self.functions).get(id).cloned()
    }

    /// The functions of an app.
    pub fn functions_of(&self, app_id: &str) -> Vec<Arc<rec::Function>> {
        let mut found: Vec<_> =
            read(&self.functions).values().filter(|function| function.app_id == app_id).cloned().collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found
    }

    /// Writes a function.
    pub async fn put_function(&self, function: rec::Function) -> Result<Arc<rec::Function>, RegistryError> {
        self.put_object(FUNCTION, &function.id, &function.app_id, function.encode_to_vec()).await?;
        Ok(insert(&self.functions, function.id.clone(), function))
    }

    /// The class `id`.
    pub fn class(&self, id: &str) -> Option<Arc<rec::Class>> {
        read(&self.classes).get(id).cloned()
    }

    /// The classes of an app.
    pub fn classes_of(&self, app_id: &str) -> Vec<Arc<rec::Class>> {
        let mut found: Vec<_> =
            read(&self.classes).values().filter(|class| class.app_id == app_id).cloned().collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found
    }

    /// Writes a class.
    pub async fn put_class(&self, class: rec::Class) -> Result<Arc<rec::Class>, RegistryError> {
        self.put_object(CLASS, &class.id, &class.app_id, class.encode_to_vec()).await?;
        Ok(insert(&self.classes, class.id.clone(), class))
    }

    /// The mount `id`.
    pub fn mount(&self, id: &str) -> Option<Arc<rec::Mount>> {
        // Before the look, so that of a removal at the same time one sees the other.
        self.uses.note(id);
        read(&self.mounts).get(id).cloned()
    }

    /// Writes a mount, unless it is there.
    pub async fn put_mount(&self, mount: rec::Mount) -> Result<Arc<rec::Mount>, RegistryError> {
        let _not_pruned = self.uses.pruning.read().await;
        if let Some(existing) = self.mount(&mount.id) {
            return Ok(existing);
        }
        self.uses.begin(&mount.id);
        self.put_object(MOUNT, &mount.id, "", mount.encode_to_vec()).await?;
        Ok(insert(&self.mounts, mount.id.clone(), mount))
    }

    /// The finished image `id`.
    pub fn image(&self, id: &str) -> Option<Arc<rec::Image>> {
        self.uses.note(id);
        read(&self.images).get(id).cloned()
    }

    /// The newest image that was built by force in place of `id`.
    pub fn image_in_place_of(&self, id: &str) -> Option<Arc<rec::Image>> {
        let images = read(&self.images);
        let forced = images.values().filter(|image| image.in_place_of == id);
        let newest = forced.max_by(|a, b| a.built_at.total_cmp(&b.built_at)).cloned();
        drop(images);
        newest.and_then(|image| self.image(&image.id))
    }

    /// Writes a finished image.
    pub async fn put_image(&self, image: rec::Image) -> Result<Arc<rec::Image>, RegistryError> {
        let row = images::Image {
            id: image.id.clone(),
            cache_key: image.cache_key.clone(),
            state: READY.to_owned(),
            record: image.encode_to_vec(),
        };
        let _not_pruned = self.uses.pruning.read().await;
        self.uses.begin(&image.id);
        images::put(&self.meta, &row).await?;
        Ok(insert(&self.images, image.id.clone(), image))
    }

    async fn put_object(
        &self,
        kind: &str,
        id: &str,
        app_id: &str,
        record: Vec<u8>,
    ) -> Result<(), RegistryError> {
        Ok(objects::put(&self.meta, &object_row(kind, id, app_id, record)).await?)
    }
}

fn app_row(app: &rec::App) -> apps::App {
    apps::App {
        id: app.id.clone(),
        name: if app.name.is_empty() { app.description.clone() } else { app.name.clone() },
        environment: app.environment.clone(),
        state: app.state().as_str_name().to_owned(),
        created_at: millis(app.created_at),
        record: app.encode_to_vec(),
    }
}

fn object_row(kind: &str, id: &str, app_id: &str, record: Vec<u8>) -> objects::Object {
    objects::Object {
        id: id.to_owned(),
        kind: kind.to_owned(),
        app_id: app_id.to_owned(),
        name: String::new(),
        record,
    }
}

async fn load_kind<T: prost::Message + Default>(
    meta: &Meta,
    kind: &str,
) -> Result<HashMap<String, Arc<T>>, RegistryError> {
    let mut records = HashMap::new();
    for row in objects::list_by_kind(meta, kind).await? {
        let record = decode::<T>(&row.id, &row.record)?;
        records.insert(row.id, Arc::new(record));
    }
    Ok(records)
}

fn decode<T: prost::Message + Default>(id: &str, bytes: &[u8]) -> Result<T, RegistryError> {
    T::decode(bytes).map_err(|source| RegistryError::Record { id: id.to_owned(), source })
}

fn insert<T>(table: &Table<T>, id: String, record: T) -> Arc<T> {
    let record = Arc::new(record);
    write(table).insert(id, Arc::clone(&record));
    record
}

// A table is only ever changed by one call on the map, so a panic elsewhere leaves it whole.
fn read<T>(table: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    table.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write<T>(table: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    table.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}
