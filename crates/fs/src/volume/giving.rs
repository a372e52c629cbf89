//! Upper directories that nobody writes to any more, on their way into the store.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use homeport_content::{Delta, FileContent, LeafKind};
use homeport_store::{Batch, Store};

use super::VolumeError;
use super::disk::GenerationDirectory;
use super::layer::{Change, Layer, Scanned};
use super::record::{self, Generation, Given, Record, Unnoted};
use crate::error::io_error;

impl Layer {
    /// Writes beside an upper directory what it holds, for whoever brings that into the store. Its contents have their
    /// second names already.
    pub(super) fn write_deltas(
        &self,
        generation: &GenerationDirectory,
        scanned: &Scanned,
    ) -> Result<(), VolumeError> {
        if let Change::Part(change) = &scanned.change {
            generation.write_delta("change", change)?;
        }
        // Last: with it, all is there.
        generation.write_delta("delta", &scanned.whole)
    }

    /// The record after the upper directory is given away. `next` takes changes from then on; without it nothing does.
    pub(super) fn record_given(&self, scanned: &Scanned, next: Option<Generation>) -> Record {
        let current = &self.record.current;
        let given = Given { number: current.number, seen: current.seen.clone() };
        let spent = || {
            let delta = match &scanned.change {
                Change::Part(change) => change.id(),
                Change::Nothing | Change::Whole => scanned.whole.id(),
            };
            Generation { seen: current.seen.with(delta), spent: true, ..current.clone() }
        };
        Record { given: Some(given), current: next.unwrap_or_else(spent), ..self.record.clone() }
    }

    /// Brings into the store what was given away and is not there yet. `known` is what was found in it, with a batch that
    /// has the contents.
    pub(super) fn settle(
        &mut self,
        store: &Store,
        known: Option<(Batch<'_>, &Scanned)>,
    ) -> Result<(), VolumeError> {
        let Some(given) = self.record.given.clone() else { return Ok(()) };
        if self.unwritten {
            self.write(store, self.record.clone())?;
        }
        let generation = self.directory.generation(given.number);
        // What is in the upper directory loses its metadata when it becomes objects: from then on it counts what is
        // written here.
        generation.sync_deltas()?;
        record::sync(self.directory.path())?;
        let read;
        let (batch, scanned) = match known {
            Some(known) => known,
            None => {
                read = read_deltas(&generation, self.directory.path())?;
                let batch = store.batch()?;
                stage_contents(&batch, &generation.data(), &read.whole)?;
                (batch, &read)
            }
        };
        let whole = batch.publish_with_delta(&scanned.whole)?;
        let delta = match &scanned.change {
            Change::Part(change) => store.put_delta(change)?,
            Change::Nothing | Change::Whole => whole,
        };
        let mut record = self.record.clone();
        record.given = None;
        record.unnoted.push(Unnoted { delta, seen: given.seen });
        self.write(store, record)?;
        if let Err(error) = generation.remove_upper() {
            tracing::warn!(%error, "what a Volume's layer held stays on disk for a while");
        }
        Ok(())
    }
}

fn read_deltas(generation: &GenerationDirectory, layer: &Path) -> Result<Scanned, VolumeError> {
    let missing = || VolumeError::Record {
        path: layer.to_owned(),
        reason: "it names a delta that is not there".into(),
    };
    let whole = Arc::new(generation.read_delta("delta")?.ok_or_else(missing)?);
    let change = match generation.read_delta("change")? {
        Some(change) => Change::Part(Box::new(change)),
        None => Change::Whole,
    };
    Ok(Scanned { whole, change })
}

/// Stages every object that the store lacks, by one more name of the file in `data`.
fn stage_contents(batch: &Batch<'_>, data: &Path, whole: &Delta) -> Result<(), VolumeError> {
    for leaf in &whole.leaves {
        let LeafKind::File(FileContent::Object { digest, .. }) = &leaf.kind else { continue };
        if batch.contains(digest)? {
            continue;
        }
        let hex = digest.to_hex();
        let (shard, rest) = hex.split_at(2);
        let (named, staged) = (data.join(shard).join(rest), batch.scratch_path());
        fs::hard_link(&named, &staged).map_err(io_error("link to", &named))?;
        batch.stage_file(*digest, staged)?;
    }
    Ok(())
}
