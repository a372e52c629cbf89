//! Random histories of several containers beside uploads, pruning, folding and restarts, held against a plain map.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Container, Place, file};
use crate::volumes::Settings;
use crate::volumes::containers::Mounted;
use crate::volumes::publish::Outcome;

const HISTORIES: u64 = 20;
const STEPS: usize = 80;
const CONTAINERS: usize = 3;

type Files = BTreeMap<String, String>;

/// A container as a model: what it sees, and what it changed since it reported last.
struct Model {
    container: Container,
    view: Files,
    changes: BTreeMap<String, Option<String>>,
    /// Paths that others changed since it looked, and it did not change after that.
    foreign: BTreeSet<String>,
    mounted: std::sync::Arc<Mounted>,
}

fn start(place: &Place, id: &str, number: usize, head: &Files) -> Model {
    let task_id = format!("ta-{number}");
    let container = Container::new(place, &task_id, id);
    let ids = (task_id.as_str(), id, "worker");
    let mounted = place.volumes.containers.mount(Mounted::new(ids, "v".into(), "f", "ap-1", "ap-1"));
    mounted.pin(&place.store, &container.seen);
    mounted.shows(container.seen_version);
    Model { container, view: head.clone(), changes: BTreeMap::new(), foreign: BTreeSet::new(), mounted }
}

/// Reports what a container changed. The paths that changed by it in the newest version come back.
async fn publish(place: &Place, model: &mut Model, head: &mut Files) -> Vec<String> {
    if model.changes.is_empty() {
        return Vec::new();
    }
    let changes = std::mem::take(&mut model.changes);
    let report = model.container.change(&place.store, |edit| {
        for (path, change) in &changes {
            match change {
                Some(text) => edit.put_leaf(path.as_bytes(), file(text)).unwrap(),
                None => edit.remove(path.as_bytes(), false).unwrap(),
            }
        }
    });
    let outcome = place.volumes.publish_taken(report).await.unwrap();
    if let Outcome::Published { version, .. } = outcome {
        assert!(version.record.conflicts.iter().all(|conflict| conflict.lost_version < version.number()));
    }
    let paths = changes.keys().cloned().collect();
    for (path, change) in changes {
        model.foreign.remove(&path);
        match change {
            Some(text) => drop(head.insert(path, text)),
            None => drop(head.remove(&path)),
        }
    }
    paths
}

/// Removes a directory as a container sees it: what others put there meanwhile stays.
async fn remove_directory(
    place: &Place,
    model: &mut Model,
    head: &mut Files,
    directory: &str,
) -> Vec<String> {
    let seen = crate::volumes::entry::layers(&place.store, &model.container.seen).unwrap();
    if seen.get(directory.as_bytes()).is_none() {
        return Vec::new();
    }
    let report =
        model.container.change(&place.store, |edit| edit.remove(directory.as_bytes(), true).unwrap());
    place.volumes.publish_taken(report).await.unwrap();
    let below = |path: &String| path.starts_with(&format!("{directory}/"));
    let gone: Vec<String> =
        model.view.keys().filter(|path| below(path) && !model.foreign.contains(*path)).cloned().collect();
    model.view.retain(|path, _| !below(path));
    head.retain(|path, _| !gone.contains(path));
    gone
}

async fn history(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut place = Place::new().await;
    let id = place.volume("weights").await;
    let few = Settings { keep_versions: Some(random.random_range(1..6)), ..Default::default() };
    place.volumes.configure(&id, few).await.unwrap();
    let (mut head, mut started) = (Files::new(), 0);
    let mut models: Vec<Model> = Vec::new();
    for step in 0..STEPS {
        let path = format!("d{}/f{}", random.random_range(0..3), random.random_range(0..4));
        let text = format!("{step}");
        while models.len() < CONTAINERS {
            started += 1;
            models.push(start(&place, &id, started, &head));
        }
        let chosen = random.random_range(0..CONTAINERS);
        let model = &mut models[chosen];
        let maker = model.container.task_id.clone();
        let mut touched = Vec::new();
        match random.random_range(0..22) {
            0..8 => {
                model.view.insert(path.clone(), text.clone());
                model.changes.insert(path, Some(text));
            }
            8..11 if model.view.remove(&path).is_some() => {
                // A file that nobody else ever saw is as if it had not been.
                let below = super::entry_of(&place, &model.container);
                match below.contains_key(&path) {
                    true => drop(model.changes.insert(path, None)),
                    false => drop(model.changes.remove(&path)),
                }
            }
            8..14 => touched = publish(&place, model, &mut head).await,
            14 => {
                // A reload.
                touched = publish(&place, model, &mut head).await;
                model.foreign.clear();
                let newest = place.volumes.head(&id).unwrap();
                (model.container.seen_version, model.container.seen) =
                    (newest.number(), newest.stack.clone());
                model.view.clone_from(&head);
                model.mounted.pin(&place.store, &newest.stack);
                model.mounted.shows(newest.number());
            }
            15 => {
                // An end.
                touched = publish(&place, model, &mut head).await;
                place.volumes.containers.unmount(&models.remove(chosen).container.task_id);
            }
            16 | 17 => {
                place.upload(&id, &[(&path, &text)]).await;
                for model in &mut models {
                    model.foreign.insert(path.clone());
                }
                head.insert(path, text);
            }
            20 | 21 => {
                touched = publish(&place, model, &mut head).await;
                let directory = format!("d{}", random.random_range(0..3));
                touched.extend(remove_directory(&place, model, &mut head, &directory).await);
            }
            18 => {
                let entry = place.volumes.entry(&id).unwrap();
                place.volumes.prune_now(&id, &entry).await.unwrap();
                place.volumes.tidy(&id, &entry).await.unwrap();
            }
            _ => {
                // A restart: what containers changed is reported afterwards, and nobody knows them any more.
                place = place.again().await;
                for number in 0..models.len() {
                    let paths = publish(&place, &mut models[number], &mut head).await;
                    for model in models.iter_mut().skip(number + 1) {
                        model.foreign.extend(paths.iter().cloned());
                    }
                }
                models.clear();
            }
        }
        for model in models.iter_mut().filter(|model| model.container.task_id != maker) {
            model.foreign.extend(touched.iter().cloned());
        }
        assert_eq!(place.files(&id).await, head, "seed {seed}, step {step}");
    }
    let record = place.volumes.head(&id).unwrap().record.clone();
    assert_eq!(
        (record.files, record.bytes),
        place.volumes.layered(&id).await.unwrap().totals(),
        "seed {seed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_the_newest_version_has_what_was_committed_last() {
    for seed in 0..HISTORIES {
        history(seed).await;
    }
}
