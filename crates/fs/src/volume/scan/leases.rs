//! Read leases: files of which the kernel says when somebody is about to write to them.
//!
//! The kernel refuses a read lease on a file that is open for writing, and makes who wants to open a file for writing, or
//! to cut it, wait until its leases are given up. So what was read under a lease that held is what the file has, and
//! leases are looked at every few milliseconds: nobody waits for longer than that.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use libc::{F_GETLEASE, F_RDLCK, F_SETLEASE, F_UNLCK};

/// Which signal says that a lease is wanted back.
const F_SETSIG: libc::c_int = 10;

/// How long a writer may have to wait, about.
const PAUSE: Duration = Duration::from_millis(2);

/// Whether nobody has this file open for writing now. The file must be open for reading only.
pub(super) fn without_writers(file: &File) -> bool {
    let free = take(file).is_ok();
    if free {
        give_up(file);
    }
    free
}

fn take(file: &File) -> io::Result<()> {
    // The signal for a lease that is wanted back would end the process if it stayed SIGIO. This one is ignored by
    // those who do not ask for it.
    fcntl(file, F_SETSIG, libc::SIGURG)?;
    fcntl(file, F_SETLEASE, F_RDLCK).map(drop)
}

fn give_up(file: &File) {
    // It goes with the descriptor at the latest.
    let _ = fcntl(file, F_SETLEASE, F_UNLCK);
}

/// Whether a lease holds, and nobody waits for its end.
fn holds(file: &File) -> bool {
    fcntl(file, F_GETLEASE, 0).is_ok_and(|kind| kind == F_RDLCK)
}

fn fcntl(file: &File, command: libc::c_int, argument: libc::c_int) -> io::Result<libc::c_int> {
    // SAFETY: the descriptor is open, and these commands take an integer.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Leases that are given up by a thread of their own when a writer comes.
#[derive(Debug)]
pub(super) struct Leases {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    held: HashMap<u64, File>,
    ended: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) {
        let mut state = self.state();
        while !state.ended {
            state = if state.held.is_empty() {
                self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                state.held.retain(|_, file| {
                    let holds = holds(file);
                    if !holds {
                        give_up(file);
                    }
                    holds
                });
                let waited = self.changed.wait_timeout(state, PAUSE);
                waited.unwrap_or_else(PoisonError::into_inner).0
            };
        }
        state.held.clear();
    }
}

/// A lease that was taken, and may have been given up since.
#[derive(Debug)]
pub(super) struct Lease {
    number: u64,
    shared: Arc<Shared>,
}

impl Leases {
    pub(super) fn new() -> io::Result<Leases> {
        let shared = Arc::new(Shared::default());
        let watched = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("leases".to_owned()).spawn(move || watched.watch())?;
        Ok(Leases { shared, thread: Some(thread) })
    }

    /// Takes a lease on a file, open for reading only, that nobody has open for writing.
    pub(super) fn take(&self, file: &File) -> io::Result<Lease> {
        // A lease belongs to the open file; the copy of the descriptor is the same.
        let kept = file.try_clone()?;
        take(&kept)?;
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        self.shared.state().held.insert(number, kept);
        self.shared.changed.notify_one();
        Ok(Lease { number, shared: Arc::clone(&self.shared) })
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // It does nothing that could fail.
            let _ = thread.join();
        }
    }
}

impl Lease {
    /// Whether nobody opened the file for writing since the lease was taken.
    pub(super) fn holds(&self) -> bool {
        self.shared.state().held.get(&self.number).is_some_and(holds)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(file) = self.shared.state().held.remove(&self.number) {
            give_up(&file);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_lease_stands_until_a_writer_comes_who_does_not_wait_long() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, b"content").unwrap();
        let leases = Leases::new().unwrap();
        let file = File::open(&path).unwrap();
        let lease = leases.take(&file).unwrap();
        let other = leases.take(&File::open(&path).unwrap()).unwrap();
        File::open(&path).unwrap();
        assert!(lease.holds() && other.holds());

        let before = Instant::now();
        let writer = File::options().write(true).open(&path).unwrap();
        assert!(before.elapsed() < Duration::from_millis(500), "{:?}", before.elapsed());
        assert!(!lease.holds() && !other.holds());
        assert!(leases.take(&file).is_err());
        assert!(!without_writers(&file));
        drop(writer);
        assert!(!lease.holds());
        assert!(without_writers(&file));
    }

    #[test]
    fn dropped_leases_stand_in_nobodys_way() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let leases = Leases::new().unwrap();
        let reader = File::open(file.path()).unwrap();
        // The temporary file itself is open for writing.
        assert!(leases.take(&reader).is_err());
        let path = file.into_temp_path();
        let lease = leases.take(&reader).unwrap();
        drop(lease);
        drop(leases);
        let flags = libc::O_NONBLOCK;
        use std::os::unix::fs::OpenOptionsExt;
        File::options().write(true).custom_flags(flags).open(&path).unwrap();
    }
}
