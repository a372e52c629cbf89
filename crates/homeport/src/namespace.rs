//! A mount namespace of the process's own, so that no mount can outlive it.

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Moves this process into a mount namespace of its own. Must be called before any thread is started:
/// threads that are there stay behind.
///
/// What is mounted elsewhere later still appears here; what is mounted here appears nowhere else, and is
/// gone with the last process of the namespace, however that ends.
pub(crate) fn enter_private_mounts() -> std::io::Result<()> {
    // SAFETY: only the mount namespace is unshared; descriptors stay as they are.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    Ok(())
}
