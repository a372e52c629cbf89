//! Layers that an earlier process left: what is in them is taken and reported as soon as there is a stream to control.

use std::sync::Arc;

use homeport_fs::{LeftVolume, SnapshotFs, VolumeError};
use homeport_store::Store;
use tokio::sync::Mutex;

use super::note::{Note, NotedStack};
use super::sync::SyncWatch;
use super::volume::{Beginning, Layer, Stage, Volume};
use super::{Volumes, stacks};
use crate::error::sentence;

/// Finds what was left and enters it into the books. Returns how many Volumes there are.
pub(crate) fn take_up(
    fs: &Arc<SnapshotFs>,
    store: &Arc<Store>,
    volumes: &Volumes,
) -> Result<usize, VolumeError> {
    let left = fs.left_volumes()?;
    let mut found = 0;
    for layer in left {
        let key = layer.key.clone();
        match read(Box::new(layer), store, &volumes.sync) {
            Ok(volume) => {
                tracing::info!(layer = key, "changes of a Volume are left of an earlier run");
                volumes.add(&Arc::new(volume));
                found += 1;
            }
            // The first note comes before the container, so nobody can have written to this one.
            Err(layer) => {
                if let Err(error) = layer.forget() {
                    tracing::warn!(layer = key, error = sentence(&error), "an unused layer stays on disk");
                }
            }
        }
    }
    Ok(found)
}

fn read(
    layer: Box<LeftVolume>,
    store: &Arc<Store>,
    sync: &Arc<SyncWatch>,
) -> Result<Volume, Box<LeftVolume>> {
    let Some(note) = Note::parse(&layer.note) else {
        return Err(layer);
    };
    let stack = |noted: &NotedStack| stacks::from_wire(&noted.clone().into());
    let Ok(seen) = stack(&note.seen) else {
        return Err(layer);
    };
    let showing =
        note.showing.as_ref().and_then(|showing| Some((showing.version, stack(&showing.stack).ok()?)));
    Ok(Volume::new(Beginning {
        note,
        seen,
        showing,
        layer: Layer::Left(layer),
        staging: None,
        background: false,
        gate: Arc::new(Mutex::new(Stage::Ended)),
        store: Arc::clone(store),
        places: Vec::new(),
        sync: Arc::clone(sync),
    }))
}
