//! Layers of Volumes that an earlier process left.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::disk::LayerDirectory;
use super::layer::Layer;
use super::record::Record;
use super::scan::Known;
use super::{LeftVolume, Taken, VolumeError};
use crate::error::io_error;
use crate::{IdMap, SnapshotFs};

impl SnapshotFs {
    /// The layers that earlier processes left, the containers of which have ended. Call it before a Volume is opened.
    /// There are none while another process has the directory open.
    pub fn left_volumes(self: &Arc<Self>) -> Result<Vec<LeftVolume>, VolumeError> {
        if !self.alone {
            return Ok(Vec::new());
        }
        let volumes = self.volumes_dir();
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&volumes).map_err(io_error("list", &volumes))? {
            let entry = entry.map_err(io_error("list", &volumes))?;
            let Ok(key) = entry.file_name().into_string() else { continue };
            let directory = LayerDirectory::existing(entry.path());
            match Record::read(directory.path()) {
                Ok(Some(record)) => found.push(self.left(key, directory, record)?),
                // It was never mounted.
                Ok(None) => directory.remove()?,
                // Somebody may still find out what is in it.
                Err(error) => {
                    tracing::error!(%error, key, "a Volume's layer of an earlier run is left alone")
                }
            }
        }
        Ok(found)
    }

    fn left(
        self: &Arc<Self>,
        key: String,
        directory: LayerDirectory,
        record: Record,
    ) -> Result<LeftVolume, VolumeError> {
        let id_map = record.ids.map(|(host_base, size)| {
            // Ids are only counted with it; the namespace that had them is gone.
            let path = std::path::Path::new("/proc/self/ns/user");
            let userns = File::open(path).map_err(io_error("open", path))?.into();
            Ok::<_, VolumeError>(IdMap { userns, host_base, size })
        });
        let note = record.note.clone();
        let layer = Layer::new(&self.store, directory, record);
        Ok(LeftVolume { key, note, fs: Arc::clone(self), layer, id_map: id_map.transpose()?.map(Arc::new) })
    }
}

impl LeftVolume {
    /// Makes what was changed and not noted a delta in the store. Taking it once more gives the same.
    pub fn take(&mut self) -> Result<Taken, VolumeError> {
        let _hold = self.fs.store.hold();
        self.layer.settle(&self.fs.store, None)?;
        self.layer.take_ended(&self.fs, self.id_map.clone(), &Known::default(), 0)?;
        match self.layer.unnoted(&self.fs.store, 0)? {
            Some(taken) => Ok(taken),
            None => Ok(Taken { delta: None, seen: self.layer.record.current.seen.clone(), clean: true }),
        }
    }

    /// Removes the layer from disk.
    pub fn forget(self) -> Result<(), VolumeError> {
        let removed = self.layer.directory.remove();
        match removed {
            Err(error) if error.io().is_some_and(|error| error.kind() == io::ErrorKind::NotFound) => Ok(()),
            removed => removed,
        }
    }
}
