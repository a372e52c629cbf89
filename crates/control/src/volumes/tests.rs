//! Volumes on a real store and a real database.

#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod catalog;
mod commits;
mod functions;

mod history;
mod layers;
mod publishing;
mod random;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use homeport_content::{Delta, Edit, FileContent, Layered, Leaf, LeafKind, Metadata, Seen, Stack, Timestamp};
use homeport_meta::Meta;
use homeport_proto::worker as wp;
use homeport_store::Store;

use super::publish::Report;
use super::{NewVolume, Volumes};
use crate::clock::{Clock, Seconds};

/// A clock that stands still until it is moved.
pub(super) struct Hand(pub(super) Mutex<Seconds>);

impl Hand {
    pub(super) fn forward(&self, seconds: Seconds) {
        *self.0.lock().unwrap() += seconds;
    }
}

impl Clock for Hand {
    fn now(&self) -> Seconds {
        *self.0.lock().unwrap()
    }
}

pub(super) struct Place {
    pub(super) dir: tempfile::TempDir,
    pub(super) meta: Meta,
    pub(super) store: Arc<Store>,
    pub(super) clock: Arc<Hand>,
    pub(super) volumes: Arc<Volumes>,
}

impl Place {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let meta = Meta::open(dir.path()).await.unwrap();
        let store = Arc::new(Store::open(&dir.path().join("store")).unwrap());
        let clock = Arc::new(Hand(Mutex::new(1_000_000.0)));
        let volumes = load(&meta, &store, &clock).await;
        Self { dir, meta, store, clock, volumes }
    }

    /// What a server finds that starts again.
    pub(super) async fn again(self) -> Self {
        let Self { dir, meta, store, clock, volumes } = self;
        drop(volumes);
        let volumes = load(&meta, &store, &clock).await;
        Self { dir, meta, store, clock, volumes }
    }

    pub(super) async fn volume(&self, name: &str) -> String {
        let new = NewVolume { name: name.to_owned(), environment: "main".to_owned(), ..Default::default() };
        self.volumes.create(&format!("vo-{name}"), new).await.unwrap().id.clone()
    }

    /// Writes files over the API.
    pub(super) async fn upload(&self, id: &str, files: &[(&str, &str)]) -> u64 {
        let files: Vec<_> = files.iter().map(|(path, text)| (path.to_string(), text.to_string())).collect();
        let edit = move |head: &Layered| {
            Ok::<_, tonic::Status>(changed(head, |edit| {
                for (path, text) in &files {
                    edit.put_leaf(path.as_bytes(), file(text)).unwrap();
                }
            }))
        };
        self.volumes.publish_edit(id, "upload", edit).await.unwrap()
    }

    /// The files of the newest version.
    pub(super) async fn files(&self, id: &str) -> BTreeMap<String, String> {
        files(&self.volumes.layered(id).await.unwrap())
    }
}

async fn load(meta: &Meta, store: &Arc<Store>, clock: &Arc<Hand>) -> Arc<Volumes> {
    let clock: Arc<dyn Clock> = Arc::<Hand>::clone(clock);
    let volumes = Volumes::load(meta.clone(), Arc::clone(store), clock, |app_id| app_id == "ap-lives");
    Arc::new(volumes.await.unwrap())
}

/// A container: what it sees, and what it reported.
pub(super) struct Container {
    pub(super) task_id: String,
    pub(super) volume_id: String,
    pub(super) seen_version: u64,
    pub(super) seen: Stack,
    pub(super) sequence: u64,
}

impl Container {
    pub(super) fn new(place: &Place, task_id: &str, volume_id: &str) -> Self {
        let head = place.volumes.head(volume_id).unwrap();
        Self {
            task_id: task_id.to_owned(),
            volume_id: volume_id.to_owned(),
            seen_version: head.number(),
            seen: head.stack.clone(),
            sequence: 0,
        }
    }

    /// Changes something in its view and reports it.
    pub(super) fn change(&mut self, store: &Store, change: impl FnOnce(&mut Edit<'_>)) -> Report {
        let delta = changed(&super::entry::layers(store, &self.seen).unwrap(), change);
        let delta = store.put_delta(&delta).unwrap();
        self.sequence += 1;
        let report = Report {
            task_id: self.task_id.clone(),
            function_name: format!("f of {}", self.task_id),
            app_id: "ap-1".to_owned(),
            volume_id: self.volume_id.clone(),
            sequence: self.sequence,
            delta,
            seen_version: self.seen_version,
            seen: self.seen.clone(),
            reason: wp::TakeReason::Background,
        };
        self.seen = self.seen.with(delta);
        report
    }

    pub(super) fn write(&mut self, store: &Store, path: &str, text: &str) -> Report {
        self.change(store, |edit| edit.put_leaf(path.as_bytes(), file(text)).unwrap())
    }
}

pub(super) fn file(text: &str) -> Leaf {
    let content = FileContent::Inline(text.as_bytes().into());
    Leaf { metadata: Metadata::with_mode(0o644), kind: LeafKind::File(content) }
}

pub(super) fn changed(head: &Layered, change: impl FnOnce(&mut Edit<'_>)) -> Delta {
    let mut edit = Edit::new(head, Timestamp { seconds: 1, nanos: 0 });
    change(&mut edit);
    edit.finish()
}

pub(super) fn files(layered: &Layered) -> BTreeMap<String, String> {
    let leaves = layered.walk(b"").filter_map(|(path, seen)| match seen {
        Seen::Leaf { leaf: Leaf { kind: LeafKind::File(FileContent::Inline(bytes)), .. }, .. } => {
            Some((String::from_utf8(path).unwrap(), String::from_utf8(bytes.to_vec()).unwrap()))
        }
        _ => None,
    });
    leaves.collect()
}

/// The files below a container's changes.
pub(super) fn entry_of(place: &Place, container: &Container) -> BTreeMap<String, String> {
    files(&super::entry::layers(&place.store, &container.seen).unwrap())
}

pub(super) fn of(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(path, text)| (path.to_string(), text.to_string())).collect()
}
