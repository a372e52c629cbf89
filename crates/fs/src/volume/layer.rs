//! The layer of one Volume: what is in it, what of that is new, and how it gets into the store.

use std::collections::HashSet;
use std::sync::Arc;

use homeport_content::{Delta, DeltaId, Layered, Metadata, Stack, diff};
use homeport_store::{Batch, Pin, Root, Store};

use super::disk::{GenerationDirectory, LayerDirectory};
use super::record::{self, Generation, Record, Unnoted};
use super::{Taken, VolumeError};

/// So many deltas of one upper directory are one again.
const MOST_SEPARATE: usize = 8;

/// A layer on disk, and what it says of itself there.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) directory: LayerDirectory,
    pub(super) record: Record,
    /// The record in memory is newer than that on disk.
    pub(super) unwritten: bool,
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
