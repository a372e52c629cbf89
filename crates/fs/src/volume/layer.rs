//! The layer of one Volume: what is in it, what of that is new, and how it gets into the store.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use homeport_content::{Delta, DeltaId, FileContent, Layered, LeafKind, Metadata, Stack, diff};
use homeport_store::{Batch, Pin, Root, Store};

use super::disk::{GenerationDirectory, LayerDirectory};
use super::record::{self, Generation, Given, Record, Unnoted};
use super::{Taken, VolumeError};
use crate::error::io_error;

/// So many deltas of one upper directory are one again.
const MOST_SEPARATE: usize = 8;

/// A layer on disk, and what it says of itself there.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) directory: LayerDirectory,
    pub(super) record: Record,
    /// The record in memory is newer than that on disk.
    unwritten: bool,
    /// So many of what is not noted were given to who is to note them.
    handed_over: usize,
    /// Keeps what the record names in the store.
    pin: Option<Pin>,
}

/// What an upper directory holds, and what of that is new.
pub(super) struct Scanned {
    pub(super) whole: Arc<Delta>,
    pub(super) change: Change,
}

/// What was not taken before.
pub(super) enum Change {
    Nothing,
    /// All that there is.
    Whole,
    Part(Box<Delta>),
}

impl Layer {
    pub(super) fn new(store: &Store, directory: LayerDirectory, record: Record) -> Layer {
        let mut layer = Layer { directory, record, unwritten: false, handed_over: 0, pin: None };
        layer.pin(store);
        layer
    }

    /// The upper directory that takes changes; `None` if none does any more.
    pub(super) fn upper(&self) -> Option<GenerationDirectory> {
        let current = &self.record.current;
        (!current.spent).then(|| self.directory.generation(current.number))
    }

    /// A number that no upper directory has.
    pub(super) fn next_number(&self) -> Result<u64, VolumeError> {
        Ok(self.directory.generations()?.into_iter().max().unwrap_or(0) + 1)
    }

    /// Replaces the record, in memory and on disk.
    pub(super) fn write(&mut self, store: &Store, record: Record) -> Result<(), VolumeError> {
        self.record = record;
        self.unwritten = true;
        self.pin(store);
        self.record.write(self.directory.path())?;
        self.unwritten = false;
        Ok(())
    }

    /// The record on disk is this one now, or could not be replaced.
    pub(super) fn replaced(
        &mut self,
        store: &Store,
        record: Record,
        written: Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        self.record = record;
        self.unwritten = written.is_err();
        self.pin(store);
        written
    }

    /// Keeps a text; see [`VolumeMount::note`](super::VolumeMount::note).
    pub(super) fn note(&mut self, store: &Store, text: &str, durable: bool) -> Result<(), VolumeError> {
        let record = Record { note: text.to_owned(), unnoted: Vec::new(), ..self.record.clone() };
        self.handed_over = 0;
        self.write(store, record)?;
        if durable { record::sync(self.directory.path()) } else { Ok(()) }
    }

    fn pin(&mut self, store: &Store) {
        let record = &self.record;
        let current = [&record.current.over, &record.current.seen];
        let stacks = current.into_iter().chain(record.given.iter().map(|given| &given.seen));
        let stacks = stacks.chain(record.unnoted.iter().map(|unnoted| &unnoted.seen));
        let roots: HashSet<Root> = stacks
            .flat_map(Root::of_stack)
            .chain(record.unnoted.iter().map(|unnoted| Root::Delta(unnoted.delta)))
            // What is on its way there keeps itself: its files have their names in the layer.
            .filter(|root| !matches!(root, Root::Delta(delta) if !store.contains_delta(delta)))
            .collect();
        // The new one first, so that nothing is unpinned in between.
        self.pin = Some(store.pin(roots));
    }

    /// What is new in the upper directory, of which the scan found `whole`.
    ///
    /// Refused if the files then have more than `quota` bytes together; 0 means no limit.
    pub(super) fn compare(
        &self,
        store: &Store,
        below: &Layered,
        whole: Delta,
        quota: u64,
    ) -> Result<Scanned, VolumeError> {
        let whole = Arc::new(whole);
        let Generation { over, seen, .. } = &self.record.current;
        let earlier = seen.deltas.get(over.deltas.len()..).unwrap_or_default();
        let change = if earlier.is_empty() {
            let root = root_of(below);
            if is_nothing(&whole, root) { Change::Nothing } else { Change::Whole }
        } else {
            let mut before = below.clone();
            for delta in earlier {
                before.deltas.push(store.delta(delta)?);
            }
            let change = diff(&before, &below.with(Arc::clone(&whole)));
            let nothing = is_nothing(&change, root_of(&before));
            if nothing { Change::Nothing } else { Change::Part(Box::new(change)) }
        };
        if quota > 0 && !matches!(change, Change::Nothing) {
            let (_, bytes) = below.with(Arc::clone(&whole)).totals();
            if bytes > quota {
                return Err(VolumeError::Quota { bytes, quota });
            }
        }
        Ok(Scanned { whole, change })
    }

    /// Publishes a batch that has all new content of the upper directory, which stays in use.
    pub(super) fn publish_copied(
        &mut self,
        store: &Store,
        batch: Batch<'_>,
        scanned: &Scanned,
    ) -> Result<(), VolumeError> {
        let current = self.record.current.clone();
        let (delta, of_whole) = match &scanned.change {
            Change::Nothing => return Ok(()),
            Change::Whole => (batch.publish_with_delta(&scanned.whole)?, None),
            Change::Part(change) => {
                let delta = batch.publish_with_delta(change)?;
                let separate = current.seen.deltas.len() + 1 - current.over.deltas.len();
                let whole =
                    (separate > MOST_SEPARATE).then(|| store.put_delta(&scanned.whole)).transpose()?;
                (delta, whole)
            }
        };
        let seen = match of_whole {
            Some(whole) => current.over.with(whole),
            None => current.seen.with(delta),
        };
        let mut record = self.record.clone();
        record.unnoted.push(Unnoted { delta, seen: current.seen.clone() });
        record.current = Generation { seen, ..current };
        self.write(store, record)
    }

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

    /// What was taken since this was asked last, as one change.
    pub(super) fn hand_over(&mut self, store: &Store) -> Result<Option<Taken>, VolumeError> {
        let taken = self.unnoted(store, self.handed_over)?;
        self.handed_over = self.record.unnoted.len();
        Ok(taken)
    }

    /// What was taken and not noted, except for the first so many, as one change.
    pub(super) fn unnoted(&self, store: &Store, except: usize) -> Result<Option<Taken>, VolumeError> {
        let mut all = self.record.unnoted.iter().skip(except);
        let Some(first) = all.next() else { return Ok(None) };
        let mut delta = first.delta;
        let mut folded: Option<Delta> = None;
        for next in all {
            let below = store.layered(&first.seen)?;
            let lower = match folded.take() {
                Some(folded) => folded,
                None => Delta::clone(&*store.delta(&delta)?),
            };
            let upper = store.delta(&next.delta)?;
            folded = Some(homeport_content::fold(&below, &lower, &upper));
        }
        if let Some(folded) = folded {
            delta = store.put_delta(&folded)?;
        }
        Ok(Some(Taken { delta: Some(delta), seen: first.seen.clone(), clean: true }))
    }
}

/// Metadata that the root of these layers shows.
pub(super) fn root_of(layers: &Layered) -> &Metadata {
    layers.deltas.last().map_or(&layers.base.root.metadata, |delta| &delta.root.metadata)
}

/// Whether the delta changes nothing but perhaps the time of the root, which changes when a file comes and goes.
fn is_nothing(delta: &Delta, before: &Metadata) -> bool {
    let after = &delta.root.metadata;
    let rights = |it: &Metadata| (it.mode, it.uid, it.gid);
    delta.is_empty() && rights(after) == rights(before) && after.xattrs == before.xattrs
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

/// A stack with the delta on top, of which the layers that came from here are folded where they are small beside it.
pub(super) fn fold_own(store: &Store, shown: &Stack, over: &Stack) -> Result<Stack, VolumeError> {
    let own = over.deltas.get(shown.deltas.len()..).unwrap_or_default();
    if own.len() < MOST_SEPARATE {
        return Ok(over.clone());
    }
    let below = store.layered(shown)?;
    let mut folded = Delta::clone(&*store.delta(&own[0])?);
    for delta in &own[1..] {
        folded = homeport_content::fold(&below, &folded, &*store.delta(delta)?);
    }
    let id: DeltaId = store.put_delta(&folded)?;
    Ok(shown.with(id))
}
