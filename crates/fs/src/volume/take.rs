//! Taking what a container changed.

use std::sync::Arc;
use std::time::Duration;

use homeport_content::{Delta, Layered, Stack};
use homeport_store::Batch;

use super::frozen::Frozen;
use super::layer::{Change, Layer, Scanned, fold_own};
use super::namespace::{Mounted, enter};
use super::open::Shown;
use super::open_files::Wanted;
use super::quiet;
use super::record::Generation;
use super::scan::{Contents, Known, Manner};
use super::upper::Upper;
use super::{Inside, TakeKind, Taken, VolumeError, VolumeMount};
use crate::{Backend, IdMap, Lower, SnapshotFs, drop_aside};

/// Larger files that are open for writing wait until they are closed, when nobody asked and they would be copied byte by
/// byte.
const LARGE_AND_OPEN: u64 = 64 << 20;

/// How long the processes of an ended container may still hold its mounts.
const LAST_USERS: Duration = Duration::from_secs(2);

impl VolumeMount {
    /// Makes what the container changed a delta in the store. `inside` is `None` when it has ended.
    ///
    /// An error leaves the changes where they are. What was brought into the store all the same is in what the next
    /// call gives.
    pub fn take(&mut self, inside: Option<Inside<'_>>, kind: TakeKind) -> Result<Taken, VolumeError> {
        match self.try_take(inside, kind) {
            // What was removed from a full disk can be committed with what is kept for that.
            Err(error) if error.is_for_lack_of_space() && self.fs.reserve().give_up() => {
                self.try_take(inside, kind)
            }
            taken => taken,
        }
    }

    fn try_take(&mut self, inside: Option<Inside<'_>>, kind: TakeKind) -> Result<Taken, VolumeError> {
        self.staged.clear();
        let fs = Arc::clone(&self.fs);
        let _hold = fs.store.hold();
        self.settle()?;
        let clean = match (inside, &mut self.layer) {
            (_, None) => true,
            (Some(inside), Some(_)) => self.take_running(inside, kind)?,
            (None, Some(layer)) => {
                layer.take_ended(&fs, self.id_map.clone(), &self.known, self.quota)?;
                true
            }
        };
        if kind != TakeKind::Asked {
            self.sweep();
        }
        let Some(layer) = &mut self.layer else {
            return Ok(Taken { delta: None, seen: self.shown.over.clone(), clean });
        };
        let taken = layer.hand_over(&fs.store)?;
        Ok(taken.map_or_else(
            || Taken { delta: None, seen: layer.record.current.seen.clone(), clean },
            |taken| Taken { clean, ..taken },
        ))
    }

    /// Whether a fresh layer takes changes afterwards.
    fn take_running(&mut self, inside: Inside<'_>, kind: TakeKind) -> Result<bool, VolumeError> {
        if self.is_untouched()? {
            return Ok(true);
        }
        let Some(upper) = self.upper()? else { return Ok(true) };
        let fingerprint = quiet::fingerprint(&upper.generation.upper());
        if let Some((quiet, clean)) = self.quiet.take_if(|(quiet, _)| Some(*quiet) == fingerprint) {
            self.quiet = Some((quiet, clean));
            return Ok(clean);
        }
        let fs = Arc::clone(&self.fs);
        let next_over = fold_own(&fs.store, &self.shown.stack, &self.shown.over)?;
        let mut batch = fs.store.batch()?;
        // A mount that nobody uses now will most likely be unused in a moment: then nothing needs to be copied.
        let unused = self.is_unused(inside, &self.mounted(inside)?)?;
        let likely = if unused { Manner::Adopt } else { Manner::Copy };
        let contents = Contents::new(&fs.store, &batch, likely, &self.known);
        contents.survey(&upper.generation.upper(), &upper.below)?;

        let frozen = Frozen::new(inside.freezer)?;
        let places = self.mounted(inside)?;
        let writes = self.finds(inside, &places, Wanted::Writers).is_some();
        let whole = if self.is_unused(inside, &places)? {
            let contents = contents.in_manner(Manner::Adopt);
            let whole = upper.scan(&contents)?;
            drop(contents);
            let scanned = self.compare(&upper.below, whole)?;
            if matches!(scanned.change, Change::Nothing) {
                return Ok(scanned.whole.is_empty());
            }
            match self.give_and_swap(inside, &places, &upper, &batch, &scanned, &next_over) {
                Ok(true) => {
                    drop(frozen);
                    if let Some(layer) = &mut self.layer {
                        layer.settle(&fs.store, Some((batch, &scanned)))?;
                    }
                    return Ok(true);
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, key = self.key, "a Volume's changes are copied, and its mount stays");
                }
            }
            batch = fs.store.batch()?;
            let contents = Contents::new(&fs.store, &batch, Manner::Copy, &self.known);
            scan_copies(&upper, contents, kind, frozen)?
        } else {
            scan_copies(&upper, contents.in_manner(Manner::Copy), kind, frozen)?
        };
        let scanned = self.compare(&upper.below, whole)?;
        if let Some(layer) = &mut self.layer {
            layer.publish_copied(&fs.store, batch, &scanned)?;
            // The record pins all of it.
            self.known.confirm();
        }
        let clean = scanned.whole.is_empty();
        // Who has a file open could go on writing without a trace in its times.
        self.quiet = fingerprint.filter(|_| !writes).map(|quiet| (quiet, clean));
        Ok(clean)
    }

    /// Where the Volume is mounted in the container.
    fn mounted(&self, inside: Inside<'_>) -> Result<Vec<Mounted>, VolumeError> {
        let (device, places) = (self.shown.device, &self.places);
        enter(inside.mount_namespace, |entered| entered.locate(device, places))
    }

    /// Whether nobody uses the Volume, and a fresh layer can take its place.
    fn is_unused(&self, inside: Inside<'_>, mounted: &[Mounted]) -> Result<bool, VolumeError> {
        // Trees of links are made of what is in the store already.
        if self.fs.backend != Backend::Erofs {
            return Ok(false);
        }
        enter(inside.mount_namespace, |entered| {
            for mount in mounted {
                if !entered.is_unused(mount)? {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// Shows the container, which is stopped, a fresh layer over what it sees. `false` if it had better not be.
    fn give_and_swap(
        &mut self,
        inside: Inside<'_>,
        places: &[Mounted],
        upper: &Upper,
        batch: &Batch<'_>,
        scanned: &Scanned,
        next_over: &Stack,
    ) -> Result<bool, VolumeError> {
        let Some(layer) = &self.layer else { return Ok(false) };
        // Those would have to be copied early once more, while the container is stopped.
        if self.early.concerns(&scanned.whole) {
            return Ok(false);
        }
        upper.name_contents(batch, &scanned.whole)?;
        layer.write_deltas(&upper.generation, scanned)?;
        let (number, given) = (layer.next_number()?, layer.record.current.number);
        let over = next_over.with(scanned.whole.id());
        let fresh = layer.directory.fresh(number, &scanned.whole.root.metadata, self.id_map.as_deref())?;
        let record = layer.record_given(scanned, Some(Generation::fresh(number, over.clone())));
        let lowers = self.fs.unpublished_mount(&scanned.whole).map_err(VolumeError::from).and_then(|top| {
            let lowers =
                Lower::of_stack(next_over).into_iter().map(|lower| Ok(self.fs.layer_mount(lower)?));
            std::iter::once(Ok(top)).chain(lowers).collect::<Result<Vec<_>, VolumeError>>()
        });
        let swapped = lowers.and_then(|lowers| {
            let assembly = self.assemble(lowers, Some(&fresh), Some(&upper.generation.data()))?;
            let prepared = record.prepare(layer.directory.path())?;
            let swaps: Vec<_> = places.iter().zip(&assembly.mounts).collect();
            let old = enter(inside.mount_namespace, |entered| entered.swap(&swaps))?;
            Ok((assembly, prepared, old))
        });
        let (assembly, prepared, old) = match swapped {
            Ok(swapped) => swapped,
            Err(error) => {
                self.fs.remove_aside(fresh.path());
                return Err(error);
            }
        };
        drop_aside(old);
        self.shown = Shown::new(self.shown.stack.clone(), over, assembly, Some(given));
        self.known = Known::default();
        self.quiet = None;
        if let Some(layer) = &mut self.layer
            && let Err(error) = layer.replaced(&self.fs.store, record, prepared.put_in_place())
        {
            // It is tried again before the store gets anything.
            tracing::error!(%error, key = self.key, "the record of a Volume's layer is out of date");
        }
        Ok(true)
    }

    /// What is new, within the Volume's limit.
    fn compare(&self, below: &Layered, whole: Delta) -> Result<Scanned, VolumeError> {
        match &self.layer {
            Some(layer) => layer.compare(&self.fs.store, below, whole, self.quota),
            None => Ok(Scanned { whole: Arc::new(whole), change: Change::Nothing }),
        }
    }

    /// Whether the upper directory holds changes that were not taken. Nobody may be writing.
    pub(super) fn has_untaken(&self) -> Result<bool, VolumeError> {
        if self.is_untouched()? {
            return Ok(false);
        }
        let (Some(layer), Some(upper)) = (&self.layer, self.upper()?) else { return Ok(false) };
        let batch = self.fs.store.batch()?;
        let contents = Contents::new(&self.fs.store, &batch, Manner::Copy, &self.known);
        let scanned = layer.compare(&self.fs.store, &upper.below, upper.scan(&contents)?, 0)?;
        Ok(!matches!(scanned.change, Change::Nothing))
    }

    /// Whether nothing at all was done to the upper directory since it was mounted.
    pub(super) fn is_untouched(&self) -> Result<bool, VolumeError> {
        match self.layer.as_ref().and_then(Layer::upper) {
            Some(generation) => {
                Ok(self.shown.root_stamp == Some(generation.root_stamp()?) && !generation.has_entries()?)
            }
            None => Ok(true),
        }
    }

    /// The upper directory that takes changes.
    fn upper(&self) -> Result<Option<Upper>, VolumeError> {
        let Some(generation) = self.layer.as_ref().and_then(Layer::upper) else { return Ok(None) };
        Upper::new(&self.fs, generation, &self.shown.over, self.id_map.clone()).map(Some)
    }
}

/// Copies what is new from an upper directory that stays in use; the container may run when that is done, before all of
/// it is hashed.
fn scan_copies(
    upper: &Upper,
    mut contents: Contents<'_>,
    kind: TakeKind,
    frozen: Frozen<'_>,
) -> Result<Delta, VolumeError> {
    if kind == TakeKind::Background {
        contents = contents.leaving_out_open_files_above(LARGE_AND_OPEN);
    }
    upper.scan_quickly(&contents, || drop(frozen))
}

impl Layer {
    /// Takes what an ended container left in the upper directory, which is spent then.
    pub(super) fn take_ended(
        &mut self,
        fs: &SnapshotFs,
        id_map: Option<Arc<IdMap>>,
        known: &Known,
        quota: u64,
    ) -> Result<(), VolumeError> {
        let Some(generation) = self.upper() else { return Ok(()) };
        let over = self.record.current.over.clone();
        let in_use = self.is_in_use_after_all(fs)?;
        let upper = Upper::new(fs, generation, &over, id_map)?;
        let batch = fs.store.batch()?;
        let manner = if in_use { Manner::Copy } else { Manner::Adopt };
        let contents = Contents::new(&fs.store, &batch, manner, known);
        let whole = upper.scan(&contents)?;
        drop(contents);
        let scanned = self.compare(&fs.store, &upper.below, whole, quota)?;
        if matches!(scanned.change, Change::Nothing) {
            return Ok(());
        }
        if in_use {
            return self.publish_copied(&fs.store, batch, &scanned);
        }
        upper.name_contents(&batch, &scanned.whole)?;
        self.write_deltas(&upper.generation, &scanned)?;
        let record = self.record_given(&scanned, None);
        self.write(&fs.store, record)?;
        self.settle(&fs.store, Some((batch, &scanned)))
    }

    /// Whether some process still has the mount after a while.
    fn is_in_use_after_all(&self, fs: &SnapshotFs) -> Result<bool, VolumeError> {
        let generation = self.directory.generation(self.record.current.number);
        let mut pause = Duration::from_millis(1);
        while fs.is_in_use(&generation)? {
            if pause > LAST_USERS {
                tracing::warn!(layer = %self.directory.path().display(), "some process still uses a Volume");
                return Ok(true);
            }
            std::thread::sleep(pause);
            pause *= 2;
        }
        Ok(false)
    }
}
