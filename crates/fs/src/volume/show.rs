//! Showing a running container another version.

use std::os::fd::OwnedFd;

use homeport_content::Stack;

use super::frozen::Frozen;
use super::layer::Layer;
use super::namespace::{Mounted, enter};
use super::open::Shown;
use super::open_files::{self, OnMounts, OpenFile, Wanted};
use super::record::{Generation, Record};
use super::scan::Known;
use super::{Inside, ShowError, VolumeError, VolumeMount};
use crate::drop_aside;

/// So many upper directories that nobody may use any more are looked at while somebody waits.
const MANY_RETIRED: usize = 8;

impl VolumeMount {
    /// Shows the container another version, in place. With `strict`, files that are open for reading stand against it
    /// as well.
    ///
    /// Files that are open for reading, mappings and working directories keep the version that they were opened in.
    /// Nothing can be written there any more: what was open for writing would stand against it.
    pub fn show(&mut self, inside: Inside<'_>, stack: &Stack, strict: bool) -> Result<(), ShowError> {
        self.staged.clear();
        self.settle()?;
        if !strict && self.shown.over == *stack && self.is_untouched()? {
            self.shown.stack.clone_from(stack);
            return Ok(());
        }
        let _hold = self.fs.store.hold();
        let left = self.layer.as_ref().map(|layer| layer.record.current.number);
        let number = self.layer.as_ref().map(Layer::next_number).transpose()?;
        let fresh = match (&self.layer, number) {
            (Some(layer), Some(number)) => Some(self.fresh(&layer.directory, number, stack)?),
            _ => None,
        };
        let swapped =
            self.assemble_version(stack, fresh.as_ref()).map_err(ShowError::from).and_then(|assembly| {
                let next = number.map(|number| Generation::fresh(number, stack.clone()));
                self.swap_for(inside, &assembly.mounts, next, strict)?;
                Ok(assembly)
            });
        let assembly = match swapped {
            Ok(assembly) => assembly,
            Err(error) => {
                if let Some(fresh) = fresh {
                    self.fs.remove_aside(fresh.path());
                }
                return Err(error);
            }
        };
        let new = Shown::new(stack.clone(), stack.clone(), assembly, None);
        let old = std::mem::replace(&mut self.shown, new);
        self.retired.extend(left.map(|left| old.retired(left)));
        self.known = Known::default();
        self.quiet = None;
        if self.retired.len() >= MANY_RETIRED {
            self.sweep();
        }
        Ok(())
    }

    /// Puts the mounts in place of those that the container has, while it is stopped and if nothing stands against it.
    fn swap_for(
        &mut self,
        inside: Inside<'_>,
        mounts: &[OwnedFd],
        next: Option<Generation>,
        strict: bool,
    ) -> Result<(), ShowError> {
        let _frozen = Frozen::new(inside.freezer)?;
        if self.has_untaken()? {
            return Err(ShowError::Changed);
        }
        let prepared = match (&self.layer, next) {
            (Some(layer), Some(next)) => {
                let record = Record { current: next, ..layer.record.clone() };
                let prepared = record.prepare(layer.directory.path())?;
                Some((record, prepared))
            }
            _ => None,
        };
        let places = self.stop_writing(inside, strict)?;
        let swaps: Vec<(&Mounted, &OwnedFd)> = places.iter().zip(mounts).collect();
        match enter(inside.mount_namespace, |entered| entered.swap(&swaps)) {
            Ok(old) => drop_aside(old),
            Err(error) => {
                self.let_write(inside, &places);
                return Err(error.into());
            }
        }
        if let (Some((record, prepared)), Some(layer)) = (prepared, &mut self.layer)
            && let Err(error) = layer.replaced(&self.fs.store, record, prepared.put_in_place())
        {
            // It is shown all the same, and the next note tries again.
            tracing::error!(%error, key = self.key, "the record of a Volume's layer is out of date");
        }
        Ok(())
    }

    /// Makes all places read-only, and says where they are mounted; refuses if that cannot be.
    fn stop_writing(&self, inside: Inside<'_>, strict: bool) -> Result<Vec<Mounted>, ShowError> {
        let (device, places) = (self.shown.device, &self.places);
        let (mounted, all) = enter(inside.mount_namespace, |entered| {
            let mounted = entered.locate(device, places)?;
            for (number, (mount, place)) in mounted.iter().zip(places).enumerate() {
                if !place.read_only && !entered.set_read_only(mount, true)? {
                    let done = mounted.iter().zip(places).take(number);
                    for (mount, _) in done.filter(|(_, place)| !place.read_only) {
                        entered.set_read_only(mount, false)?;
                    }
                    return Ok((mounted, false));
                }
            }
            Ok((mounted, true))
        })?;
        if !all {
            return Err(self.busy(self.finds(inside, &mounted, Wanted::Writers)));
        }
        let open = strict.then(|| self.finds(inside, &mounted, Wanted::Any)).flatten();
        if let Some(open) = open {
            self.let_write(inside, &mounted);
            return Err(self.busy(Some(open)));
        }
        Ok(mounted)
    }

    /// The first open file of the Volume that is found in the container.
    pub(super) fn finds(&self, inside: Inside<'_>, mounted: &[Mounted], wanted: Wanted) -> Option<OpenFile> {
        let ids: Vec<u64> = mounted.iter().map(|mount| mount.id).collect();
        let mounts = OnMounts { ids: &ids, device: self.shown.device };
        open_files::find(&(inside.processes)(), mounts, wanted)
    }

    /// Undoes [`VolumeMount::stop_writing`].
    fn let_write(&self, inside: Inside<'_>, mounted: &[Mounted]) {
        let again = enter(inside.mount_namespace, |entered| {
            for (mount, _) in mounted.iter().zip(&self.places).filter(|(_, place)| !place.read_only) {
                entered.set_read_only(mount, false)?;
            }
            Ok(())
        });
        if let Err(error) = again {
            tracing::error!(%error, key = self.key, "a Volume stays read-only in its container");
        }
    }

    fn busy(&self, found: Option<OpenFile>) -> ShowError {
        match found {
            Some(OpenFile { path, pid, process }) => ShowError::Busy { path, pid, process },
            // For example one that was passed through a socket and not received yet.
            None => ShowError::Busy {
                path: self.places.first().map(|place| place.path.clone()).unwrap_or_default(),
                pid: 0,
                process: "of which nothing can be told".to_owned(),
            },
        }
    }

    /// Brings into the store what an earlier take could not bring there.
    pub(super) fn settle(&mut self) -> Result<(), VolumeError> {
        match &mut self.layer {
            Some(layer) => layer.settle(&self.fs.store, None),
            None => Ok(()),
        }
    }
}
