//! Devices by the Container Device Interface: which exist, and what a container needs to use them.

use std::path::PathBuf;

use oci_spec::runtime::Spec;

/// A device can't be given to a container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CdiError {
    /// No specification has it.
    #[error("no device `{0}`")]
    NoDevice(String),
}

pub(crate) fn apply(_directories: &[PathBuf], devices: &[String], _spec: &mut Spec, _user_namespace: bool) -> Result<(), CdiError> {
    match devices.first() {
        Some(device) => Err(CdiError::NoDevice(device.clone())),
        None => Ok(()),
    }
}
