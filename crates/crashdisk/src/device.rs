//! Loop devices.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{DiskError, failed};

/// A loop device over a file. Dropping it detaches the device.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
}

impl LoopDevice {
    /// Attaches a free device to `file`.
    pub fn attach(file: &Path) -> Result<LoopDevice, DiskError> {
        let shown = run(Command::new("losetup").args(["--find", "--show"]).arg(file))?;
        Ok(LoopDevice { path: PathBuf::from(shown.trim()) })
    }

    /// The device's file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // There is nobody left to tell; a device that is in use goes with its last user.
        let _ = run(Command::new("losetup").arg("--detach").arg(&self.path));
    }
}

/// Runs a command to its end and gives its output.
pub(crate) fn run(command: &mut Command) -> Result<String, DiskError> {
    let shown = format!("{command:?}");
    let output = command.output().map_err(failed(&format!("start {shown}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(DiskError::Command { command: shown, output: said })
}
