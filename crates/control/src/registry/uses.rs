//! When images and mounts were used last, and the removal of those that nobody uses.
//!
//! Every look at one is a use. It is in memory at once and in the database now and then: what a crash
//! loses of it is little beside the time after which something goes.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use homeport_meta::{Meta, images, objects, uses};
use homeport_proto::record as rec;

use super::{Registry, RegistryError, Table, read, write};
use crate::clock::{Clock, Seconds};
use crate::functions;

/// Milliseconds since 1970.
pub(crate) type Millis = i64;

/// The last uses.
pub(super) struct Uses {
    clock: Arc<dyn Clock>,
    at: Mutex<HashMap<String, Use>>,
    /// Shared by who writes an image or a mount, alone for who removes some.
    pub(super) pruning: tokio::sync::RwLock<()>,
}

#[derive(Debug, Clone, Copy)]
struct Use {
    at: Millis,
    /// What the database has.
    written: Millis,
}

impl std::fmt::Debug for Uses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uses").finish_non_exhaustive()
    }
}

/// Images and mounts that nobody used for long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Unused {
    pub(crate) images: HashSet<String>,
    pub(crate) mounts: HashSet<String>,
}

impl Uses {
    /// Reads the last uses of those that `is_known`.
    pub(super) async fn load(
        meta: &Meta,
        clock: Arc<dyn Clock>,
        is_known: impl Fn(&str) -> bool,
    ) -> Result<Self, RegistryError> {
        let now = millis(clock.now());
        let mut at = HashMap::new();
        for kind in [uses::Kind::Images, uses::Kind::Objects] {
            for (id, written) in uses::list(meta, kind).await?.into_iter().filter(|(id, _)| is_known(id)) {
                at.insert(id, Use { at: if written > 0 { written } else { now }, written });
            }
        }
        Ok(Self { clock, at: Mutex::new(at), pruning: tokio::sync::RwLock::default() })
    }

    /// Something is looked at, if there is such a thing.
    pub(super) fn note(&self, id: &str) {
        let now = millis(self.clock.now());
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = at.get_mut(id) {
            known.at = now;
        }
    }

    /// Something is new.
    pub(super) fn begin(&self, id: &str) {
        let now = millis(self.clock.now());
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        at.entry(id.to_owned()).or_insert(Use { at: now, written: 0 }).at = now;
    }

    fn is_unused(&self, id: &str, before: Millis) -> bool {
        let at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        at.get(id).is_some_and(|known| known.at < before)
    }
}

pub(crate) fn millis(seconds: Seconds) -> Millis {
    (seconds * 1000.0) as Millis
}

impl Registry {
    /// All finished images. This is no use of them.
    pub(crate) fn all_images(&self) -> Vec<Arc<rec::Image>> {
        read(&self.images).values().cloned().collect()
    }

    /// All mounts. This is no use of them.
    pub(crate) fn all_mounts(&self) -> Vec<Arc<rec::Mount>> {
        read(&self.mounts).values().cloned().collect()
    }

    /// The images and mounts that functions of living apps need, now, when they are published next, and in the
    /// versions that can come back.
    pub(crate) fn needed(&self) -> HashSet<String> {
        let all: Vec<_> = read(&self.functions).values().cloned().collect();
        let staged = all.iter().filter_map(|function| {
            let staged = function.staged.clone()?;
            Some(rec::Function { definition: staged.definition, data: staged.data, ..Default::default() })
        });
        let staged: Vec<_> = staged.collect();
        let earlier = self.earlier_functions();
        let earlier = earlier.iter().flat_map(|deployment| &deployment.functions);
        let mut needed = self.named_images();
        for function in all.iter().map(AsRef::as_ref).chain(&staged).chain(earlier) {
            if let Some(definition) = functions::definition(self, function) {
                needed.insert(definition.image_id);
                needed.extend(definition.mount_ids);
            }
        }
        needed
    }

    /// The images and mounts that no living app needs and nobody used since `before`.
    pub(crate) fn unused(&self, before: Millis) -> Unused {
        let needed = self.needed();
        let is_unused = |id: &str| !needed.contains(id) && self.uses.is_unused(id, before);
        let mounts = self.all_mounts();
        // Mounts without a snapshot take no space.
        let mounts = mounts.iter().filter(|mount| !mount.snapshot.is_empty() && is_unused(&mount.id));
        Unused {
            images: self
                .all_images()
                .iter()
                .map(|image| image.id.clone())
                .filter(|id| is_unused(id))
                .collect(),
            mounts: mounts.map(|mount| mount.id.clone()).collect(),
        }
    }

    /// Removes the images and mounts that no living app needs and nobody used since `before`.
    pub(crate) async fn prune(&self, before: Millis) -> Result<Unused, RegistryError> {
        // Nobody writes one between its removal here and in the database.
        let _alone = self.uses.pruning.write().await;
        let unused = self.unused(before);
        let mut gone = Unused::default();
        for id in unused.images {
            if let Some(image) = self.take_unused(&self.images, &id, before) {
                if let Err(error) = images::delete(&self.meta, &id).await {
                    write(&self.images).insert(id, image);
                    return Err(error.into());
                }
                gone.images.insert(id);
            }
        }
        for id in unused.mounts {
            if let Some(mount) = self.take_unused(&self.mounts, &id, before) {
                if let Err(error) = objects::delete(&self.meta, &id).await {
                    write(&self.mounts).insert(id, mount);
                    return Err(error.into());
                }
                gone.mounts.insert(id);
            }
        }
        let mut at = self.uses.at.lock().unwrap_or_else(PoisonError::into_inner);
        at.retain(|id, _| !gone.images.contains(id) && !gone.mounts.contains(id));
        Ok(gone)
    }

    /// Takes a record out of its table, unless it was looked at: a look comes either before, and is seen here, or
    /// finds nothing.
    fn take_unused<T>(&self, table: &Table<T>, id: &str, before: Millis) -> Option<Arc<T>> {
        let mut records = write(table);
        if self.uses.is_unused(id, before) { records.remove(id) } else { None }
    }

    /// Removes an image, whoever needs it: it is built again when it is asked for.
    pub(crate) async fn forget_image(&self, id: &str) -> Result<(), RegistryError> {
        let _alone = self.uses.pruning.write().await;
        write(&self.images).remove(id);
        images::delete(&self.meta, id).await?;
        Ok(())
    }

    /// Writes down the uses that the database does not have; those of less than a day before are as good.
    pub(crate) async fn write_uses(&self) -> Result<(), RegistryError> {
        let mut news: HashMap<Millis, Vec<String>> = HashMap::new();
        {
            let at = self.uses.at.lock().unwrap_or_else(PoisonError::into_inner);
            for (id, known) in at.iter().filter(|(_, known)| known.at > known.written + uses::PRECISION) {
                news.entry(known.at).or_default().push(id.clone());
            }
        }
        for (time, ids) in news {
            uses::touch(&self.meta, uses::Kind::Images, &ids, time).await?;
            uses::touch(&self.meta, uses::Kind::Objects, &ids, time).await?;
            let mut at = self.uses.at.lock().unwrap_or_else(PoisonError::into_inner);
            for id in ids {
                if let Some(known) = at.get_mut(&id) {
                    known.written = time;
                }
            }
        }
        Ok(())
    }
}
