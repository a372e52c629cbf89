//! A place for mounts that cannot outlive the work.

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::BenchError;

/// Runs `work` on a thread with a mount namespace of its own: its mounts appear nowhere else and
/// are gone with the thread, and with the process however that ends. Threads and processes that
/// the work starts are in the same namespace.
pub(crate) fn with_private_mounts<T: Send>(
    work: impl FnOnce() -> Result<T, BenchError> + Send,
) -> Result<T, BenchError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("bench".into())
            .spawn_scoped(scope, || {
                // SAFETY: only this thread's mount namespace (and with it its working directory)
                // is unshared; descriptors stay shared.
                unsafe { unshare_unsafe(UnshareFlags::NEWNS) }
                    .map_err(|errno| BenchError::Namespace(errno.into()))?;
                let propagation = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
                mount_change("/", propagation).map_err(|errno| BenchError::Namespace(errno.into()))?;
                work()
            })
            .map_err(BenchError::Thread)?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
