//! A stopped container, for as long as a value lives.

use super::{Freezer, VolumeError};

/// The container does not run while this lives.
pub(super) struct Frozen<'a> {
    freezer: &'a dyn Freezer,
}

impl<'a> Frozen<'a> {
    pub(super) fn new(freezer: &'a dyn Freezer) -> Result<Frozen<'a>, VolumeError> {
        freezer.freeze().map_err(VolumeError::Freeze)?;
        Ok(Frozen { freezer })
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.freezer.thaw() {
            tracing::error!(%error, "a container stays stopped");
        }
    }
}
