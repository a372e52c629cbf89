//! Devices by the Container Device Interface: which exist, and what a container needs to use them.
//!
//! A vendor's tool writes specifications of the machine's devices; each says what to add to a container: device nodes,
//! mounts, variables, hooks. In a user namespace no node can be made, so one is made outside, owned by the container's
//! root, and bound.

mod edits;
mod registry;

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

pub(crate) use registry::Registry;

/// A device can't be given to a container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CdiError {
    /// A name without vendor, class or device.
    #[error("`{0}` is no device name of the form vendor/class=device")]
    NotQualified(String),
    /// No specification has the device.
    #[error(
        "no device `{device}` on this machine: {known}{unreadable}; for NVIDIA GPUs run `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`"
    )]
    NoDevice {
        /// The name asked for.
        device: String,
        /// Which devices there are.
        known: String,
        /// Which specifications could not be read.
        unreadable: String,
    },
    /// Two specifications of the same rank have the device.
    #[error("the device `{device}` is described twice, in `{first}` and `{second}`: remove one")]
    Conflict {
        /// The name asked for.
        device: String,
        /// A specification.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A device's node is missing on the host.
    #[error("the device `{device}` needs `{path}`: {source}")]
    Node {
        /// The name asked for.
        device: String,
        /// The node.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// A device's specification asks for something that doesn't exist.
    #[error("the specification of the device `{device}` is wrong: {message}")]
    Malformed {
        /// The name asked for.
        device: String,
        /// What is wrong.
        message: String,
    },
}

/// A directory for device nodes of a container in a user namespace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeDirectory<'a> {
    pub(crate) path: &'a Path,
    /// Host id of the container's root.
    pub(crate) root_id: u32,
}

/// Adds to `spec` what the devices need. Without `nodes`, the OCI runtime makes the nodes itself.
pub(crate) fn apply(
    directories: &[impl AsRef<Path>],
    devices: &[String],
    spec: &mut Spec,
    nodes: Option<NodeDirectory<'_>>,
) -> Result<(), CdiError> {
    let registry = Registry::load(directories);
    for (device, edits) in registry.edits(devices)? {
        edits::apply(&device, edits, spec, nodes)?;
    }
    Ok(())
}
