//! NVIDIA GPUs of this machine.

use std::path::PathBuf;

/// A GPU that containers can be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Fully qualified CDI device name, for example `nvidia.com/gpu=0`.
    pub device: String,
    /// Model in upper-case words, for example `H200` or `A100-80GB`; empty if unknown.
    pub model: String,
    /// Memory; 0 if unknown.
    pub memory_bytes: u64,
}

/// The GPUs of this machine for which a CDI specification in one of `cdi_dirs` has a device.
pub fn gpus(_cdi_dirs: &[PathBuf]) -> Vec<Gpu> {
    Vec::new()
}
