//! What must stay in the store, and for whom.
//!
//! Not here, because whoever uses it says so to the store itself: what is mounted, what containers
//! see of Volumes, and client layers are pinned; what builds, commits, uploads and imports work with
//! is held. Rows on uploaded files and blocks keep nothing: they are hints.

use std::collections::HashSet;

use homeport_meta::uses;
use homeport_proto::record as rec;
use homeport_store::Root;

use crate::control::Control;
use crate::registry::{Millis, Unused};
use crate::storage::StorageError;

/// Keys of steps that stay for good begin with this: with them, containers start without a network.
pub(crate) const FOR_GOOD: &str = "client layer";

/// Something that keeps content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) kind: OwnerKind,
    /// For people.
    pub(crate) name: String,
    /// Its id or key.
    pub(crate) id: String,
    pub(crate) roots: Vec<Root>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OwnerKind {
    Volume,
    Image,
    Model,
    Mount,
    Step,
    Base,
}

impl OwnerKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            OwnerKind::Volume => "volume",
            OwnerKind::Image => "image",
            OwnerKind::Model => "model",
            OwnerKind::Mount => "mount",
            OwnerKind::Step => "build cache",
            OwnerKind::Base => "base image",
        }
    }
}

/// What nobody used for long, and what that means.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stale {
    pub(crate) registry: Unused,
    pub(crate) steps: HashSet<String>,
}

impl Control {
    /// The images, mounts and build steps that nobody used since `before`.
    pub(crate) async fn stale(&self, before: Millis) -> Result<Stale, StorageError> {
        let steps = uses::list(self.registry.meta(), uses::Kind::Steps).await?;
        let steps =
            steps.into_iter().filter(|(key, at)| *at > 0 && *at < before && !key.starts_with(FOR_GOOD));
        Ok(Stale { registry: self.registry.unused(before), steps: steps.map(|(key, _)| key).collect() })
    }

    /// All who keep content, except what is `stale`. What has no sense as a name keeps nothing.
    pub(crate) async fn owners(&self, stale: &Stale) -> Result<Vec<Owner>, StorageError> {
        let mut owners = Vec::new();
        for roots in self.volumes.roots().await? {
            let stacks = roots.stacks.iter().flat_map(Root::of_stack);
            let deltas = roots.deltas.iter().copied().map(Root::Delta);
            owners.push(Owner {
                kind: OwnerKind::Volume,
                name: volume_name(&roots.volume),
                id: roots.volume.id.clone(),
                roots: stacks.chain(deltas).collect(),
            });
        }
        for model in self.options.models.list().await? {
            owners.push(Owner {
                kind: OwnerKind::Model,
                name: model.repo.to_string(),
                id: model.repo.to_string(),
                roots: model.commits.iter().map(|commit| Root::Tree(commit.snapshot)).collect(),
            });
        }
        for image in self.registry.all_images() {
            if !stale.registry.images.contains(&image.id) {
                owners.extend(of_snapshot(OwnerKind::Image, &image.id, &image.snapshot));
            }
        }
        for mount in self.registry.all_mounts() {
            if !stale.registry.mounts.contains(&mount.id) {
                owners.extend(of_snapshot(OwnerKind::Mount, &mount.id, &mount.snapshot));
            }
        }
        for (key, snapshot) in uses::step_snapshots(self.registry.meta()).await? {
            if !stale.steps.contains(&key) {
                owners.extend(of_snapshot(OwnerKind::Step, &key, &snapshot));
            }
        }
        Ok(owners)
    }
}

fn of_snapshot(kind: OwnerKind, id: &str, snapshot: &str) -> Option<Owner> {
    let root = Root::Tree(snapshot.parse().ok()?);
    Some(Owner { kind, name: id.to_owned(), id: id.to_owned(), roots: vec![root] })
}

fn volume_name(volume: &rec::Volume) -> String {
    if volume.name.is_empty() { volume.id.clone() } else { volume.name.clone() }
}
