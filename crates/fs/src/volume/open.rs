//! Opening a Volume for a container, and what lives as long as that.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use homeport_content::Stack;

use super::assembly::{Assembly, Attached, Mapped, Plan, mount_point};
use super::disk::{GenerationDirectory, LayerDirectory};
use super::early::EarlyCopies;
use super::layer::{Layer, root_of};
use super::record::{Generation, Record};
use super::scan::Known;
use super::{VolumeError, VolumeMount, VolumePlace, VolumeRequest};
use crate::kernel::LayerMount;
use crate::{IdMap, Lower, SnapshotFs};

/// What the container looks through now.
#[derive(Debug)]
pub(super) struct Shown {
    /// The version, as it was asked for.
    pub(super) stack: Stack,
    /// The layers that are mounted: the same content.
    pub(super) over: Stack,
    pub(super) device: u64,
    pub(super) lowers: Vec<Arc<LayerMount>>,
    /// The upper directory of which the contents may be in its own `data` only.
    pub(super) data: Option<u64>,
    /// Of the fresh upper directory.
    pub(super) root_stamp: Option<(i64, i64)>,
}

/// An upper directory that was left for another version, and may still be in use by those who have files open.
#[derive(Debug)]
pub(super) struct Retired {
    pub(super) number: u64,
    /// That of which it uses the contents.
    pub(super) data: Option<u64>,
    /// Keeps what it reads from.
    _lowers: Vec<Arc<LayerMount>>,
}

impl SnapshotFs {
    /// Mounts a Volume for a container that will be started.
    pub fn open_volume(self: &Arc<Self>, request: VolumeRequest<'_>) -> Result<VolumeMount, VolumeError> {
        if request.places.is_empty() {
            return Err(VolumeError::NoPlaces(request.key.to_owned()));
        }
        let early = EarlyCopies::new(request.early_copies)?;
        let id_map = request.id_map.map(copied).transpose()?;
        let writes = request.places.iter().any(|place| !place.read_only);
        let mut mount = VolumeMount {
            fs: Arc::clone(self),
            key: request.key.to_owned(),
            id_map: id_map.map(Arc::new),
            places: request.places.to_vec(),
            staging: std::path::absolute(request.staging)
                .map_err(crate::error::io_error("find", request.staging))?,
            staged: Vec::new(),
            early,
            quota: request.quota_bytes,
            mapped: Mapped::default(),
            shown: Shown::nothing(request.stack.clone()),
            layer: None,
            known: Known::default(),
            quiet: None,
            retired: Vec::new(),
        };
        if writes {
            self.reserve();
            let directory = LayerDirectory::create(&self.volumes_dir(), request.key)?;
            if let Err(error) = mount.begin(Some(directory.clone())) {
                mount.staged.clear();
                directory.remove()?;
                return Err(error);
            }
        } else {
            mount.begin(None)?;
        }
        Ok(mount)
    }

    pub(super) fn volumes_dir(&self) -> PathBuf {
        self.dir.join("volumes")
    }
}

impl VolumeMount {
    fn begin(&mut self, directory: Option<LayerDirectory>) -> Result<(), VolumeError> {
        let stack = self.shown.stack.clone();
        let fresh = match &directory {
            Some(directory) => Some(self.fresh(directory, 1, &stack)?),
            None => None,
        };
        let assembly = self.assemble_version(&stack, fresh.as_ref())?;
        for (number, mount) in assembly.mounts.iter().enumerate() {
            let path = self.staging.join(format!("place-{number}"));
            mount_point(&path)?;
            self.staged.push(Attached::new(std::os::fd::AsFd::as_fd(mount), &path)?);
        }
        if let Some(directory) = directory {
            let generation = Generation::fresh(1, stack.clone());
            let ids = self.id_map.as_ref().map(|map| (map.host_base, map.size));
            let record = Record::new(ids, generation);
            record.write(directory.path())?;
            self.layer = Some(Layer::new(&self.fs.store, directory, record));
        }
        self.shown = Shown::new(stack.clone(), stack, assembly, None);
        Ok(())
    }

    /// An empty upper directory over these layers.
    pub(super) fn fresh(
        &self,
        directory: &LayerDirectory,
        number: u64,
        over: &Stack,
    ) -> Result<GenerationDirectory, VolumeError> {
        let layers = self.fs.store.layered(over)?;
        directory.fresh(number, root_of(&layers), self.id_map.as_deref())
    }

    /// Mounts these layers for the places.
    pub(super) fn assemble(
        &self,
        lowers: Vec<Arc<LayerMount>>,
        writable: Option<&GenerationDirectory>,
        data: Option<&Path>,
    ) -> Result<Assembly, VolumeError> {
        let scratch = self.staging.join("assembly");
        mount_point(&scratch)?;
        self.fs.assemble(Plan {
            lowers,
            mapped: &self.mapped,
            writable,
            data,
            id_map: self.id_map.as_deref(),
            places: &self.places,
            scratch: &scratch,
        })
    }

    /// Mounts the layers of a version for the places, and copies early what is to be copied early.
    pub(super) fn assemble_version(
        &mut self,
        version: &Stack,
        writable: Option<&GenerationDirectory>,
    ) -> Result<Assembly, VolumeError> {
        let lowers = Lower::of_stack(version).into_iter().map(|lower| self.fs.layer_mount(lower));
        let assembly = self.assemble(lowers.collect::<Result<_, _>>()?, writable, None)?;
        if writable.is_some() && !self.early.is_empty() {
            let layers = self.fs.store.layered(version)?;
            self.early.make(&layers, assembly.root(), self.fs.shares_blocks())?;
        }
        Ok(assembly)
    }

    /// What to bind into the container: source, target, and whether it is read-only.
    pub fn binds(&self) -> Vec<(PathBuf, PathBuf, bool)> {
        let binds = self.staged.iter().zip(&self.places);
        let bind = |(source, place): (&Attached, &VolumePlace)| {
            (source.path().to_owned(), place.path.clone(), place.read_only)
        };
        binds.map(bind).collect()
    }

    /// The version that is shown, as it was asked for.
    pub fn shown(&self) -> &Stack {
        &self.shown.stack
    }

    /// The name of the layer on disk.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Keeps a text beside the layer on disk, in place of an earlier one, for who finds the layer later. It is to name
    /// all that was taken: what was taken since the last text is remembered no longer.
    pub fn note(&mut self, text: &str) -> Result<(), VolumeError> {
        match &mut self.layer {
            Some(layer) => layer.note(&self.fs.store, text, true),
            None => Ok(()),
        }
    }

    /// The same for a text that names nothing new: later processes find it, but a loss of power may bring the one before
    /// back.
    pub fn note_cheaply(&mut self, text: &str) -> Result<(), VolumeError> {
        match &mut self.layer {
            Some(layer) => layer.note(&self.fs.store, text, false),
            None => Ok(()),
        }
    }

    /// Takes the mounts away and removes the layer from disk: all that was taken is in the history.
    pub fn forget(mut self) -> Result<(), VolumeError> {
        self.staged.clear();
        if let Some(layer) = self.layer.take() {
            self.fs.remove_aside(layer.directory.path());
        }
        Ok(())
    }

    /// Removes uppers that nobody uses any more, of those that were left for another version.
    pub(super) fn sweep(&mut self) {
        let Some(layer) = &self.layer else { return };
        let fs = &self.fs;
        self.retired.retain(|retired| {
            let generation = layer.directory.generation(retired.number);
            fs.is_in_use(&generation).unwrap_or_else(|error| {
                tracing::debug!(%error, "whether an upper directory is in use cannot be told");
                true
            })
        });
        let record = &layer.record;
        let kept = |number: u64| {
            record.current.number == number
                || record.given.as_ref().is_some_and(|given| given.number == number)
                || self.shown.data == Some(number)
                || self.retired.iter().any(|it| it.number == number || it.data == Some(number))
        };
        for number in layer.directory.generations().unwrap_or_default() {
            if !kept(number) {
                fs.remove_aside(layer.directory.generation(number).path());
            }
        }
    }
}

impl Shown {
    fn nothing(stack: Stack) -> Shown {
        Shown { over: stack.clone(), stack, device: 0, lowers: Vec::new(), data: None, root_stamp: None }
    }

    pub(super) fn new(stack: Stack, over: Stack, assembly: Assembly, data: Option<u64>) -> Shown {
        let Assembly { device, lowers, root_stamp, .. } = assembly;
        Shown { stack, over, device, lowers, data, root_stamp }
    }

    /// What stays of it, as long as somebody has its files open.
    pub(super) fn retired(self, number: u64) -> Retired {
        Retired { number, data: self.data, _lowers: self.lowers }
    }
}

fn copied(map: &IdMap) -> Result<IdMap, VolumeError> {
    let userns = map.userns.try_clone();
    let userns = userns.map_err(crate::error::io_error("keep", Path::new("a user namespace")))?;
    Ok(IdMap { userns, host_base: map.host_base, size: map.size })
}
