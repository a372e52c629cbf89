//! Names that people give to images, so that other programs find them.

use std::collections::HashSet;
use std::sync::Arc;

use homeport_meta::objects;
use homeport_proto::record as rec;
use prost::Message as _;

use super::{IMAGE_NAME, Registry, RegistryError, insert, read, write};
use crate::ids;

/// How many meanings of a name are remembered.
const REMEMBERED: usize = 100;

impl Registry {
    /// The name `tag` (`name:tag`) of an environment.
    pub(crate) fn image_name(&self, environment: &str, tag: &str) -> Option<Arc<rec::ImageName>> {
        read(&self.image_names).get(&id(environment, tag)).cloned()
    }

    /// All names of an environment, in their order.
    pub(crate) fn image_names(&self, environment: &str) -> Vec<Arc<rec::ImageName>> {
        let names = read(&self.image_names);
        let mut found: Vec<_> =
            names.values().filter(|name| name.environment == environment).cloned().collect();
        found.sort_by(|a, b| a.tag.cmp(&b.tag));
        found
    }

    /// From now on the name means `revision`. A repetition of the same one changes nothing.
    pub(crate) async fn name_image(
        &self,
        environment: &str,
        tag: &str,
        revision: rec::ImageRevision,
    ) -> Result<(), RegistryError> {
        let known = self.image_name(environment, tag);
        let mut name = known.map(|name| (*name).clone()).unwrap_or_else(|| rec::ImageName {
            environment: environment.to_owned(),
            tag: tag.to_owned(),
            revisions: Vec::new(),
        });
        if name.revisions.iter().any(|known| known.id == revision.id) {
            return Ok(());
        }
        name.revisions.push(revision);
        let forgotten = name.revisions.len().saturating_sub(REMEMBERED);
        name.revisions.drain(..forgotten);
        let id = id(environment, tag);
        self.put_object(IMAGE_NAME, &id, "", name.encode_to_vec()).await?;
        insert(&self.image_names, id, name);
        Ok(())
    }

    /// Takes a name away; its images stay. False if there was none.
    pub(crate) async fn forget_image_name(
        &self,
        environment: &str,
        tag: &str,
    ) -> Result<bool, RegistryError> {
        let id = id(environment, tag);
        objects::delete(&self.meta, &id).await?;
        Ok(write(&self.image_names).remove(&id).is_some())
    }

    /// The images that names mean now.
    pub(super) fn named_images(&self) -> HashSet<String> {
        let names = read(&self.image_names);
        names.values().filter_map(|name| name.revisions.last()).map(|last| last.image_id.clone()).collect()
    }
}

fn id(environment: &str, tag: &str) -> String {
    ids::derived("in", &[environment.as_bytes(), tag.as_bytes()])
}
