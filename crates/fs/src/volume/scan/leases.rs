//! Read leases: files of which the kernel says when somebody is about to write to them.
//!
//! The kernel refuses a read lease on a file that is open for writing, and makes who wants to open a file for writing wait
//! until its leases are given up. So what was read under a lease that held is what the file had at one time, and whoever
//! writes to it later opens it later, which the file's times tell. Leases are given up after a moment, whatever comes of
//! them, so that nobody waits for longer than that.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use libc::{F_GETLEASE, F_RDLCK, F_SETLEASE, F_UNLCK};

/// Which signal says that a lease is wanted back.
const F_SETSIG: libc::c_int = 10;

/// A read lease. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Lease<'a> {
    file: &'a File,
}

impl<'a> Lease<'a> {
    /// Takes a lease on a file, open for reading only, that nobody has open for writing.
    pub(super) fn take(file: &'a File) -> io::Result<Lease<'a>> {
        // The signal for a lease that is wanted back would end the process if it stayed SIGIO. This one is ignored by
        // those who do not ask for it.
        fcntl(file, F_SETSIG, libc::SIGURG)?;
        fcntl(file, F_SETLEASE, F_RDLCK)?;
        Ok(Lease { file })
    }

    /// Whether it holds, and nobody waits for its end. To be asked every few milliseconds.
    pub(super) fn holds(&self) -> bool {
        fcntl(self.file, F_GETLEASE, 0).is_ok_and(|kind| kind == F_RDLCK)
    }

    /// As [`Lease::holds`], for those who are to stop when it does not.
    pub(super) fn check(&self) -> io::Result<()> {
        match self.holds() {
            true => Ok(()),
            false => Err(io::Error::other("somebody opened the file for writing")),
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        // It goes with the descriptor at the latest.
        let _ = fcntl(self.file, F_SETLEASE, F_UNLCK);
    }
}

/// Whether nobody has this file open for writing now. The file must be open for reading only.
pub(super) fn without_writers(file: &File) -> bool {
    Lease::take(file).is_ok()
}

fn fcntl(file: &File, command: libc::c_int, argument: libc::c_int) -> io::Result<libc::c_int> {
    // SAFETY: the descriptor is open, and these commands take an integer.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_lease_stands_until_a_writer_comes_who_waits_for_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, b"content").unwrap();
        let file = File::open(&path).unwrap();
        let lease = Lease::take(&file).unwrap();
        File::open(&path).unwrap();
        assert!(lease.holds());

        let before = Instant::now();
        let writer = std::thread::scope(|scope| {
            let writer = scope.spawn(|| File::options().write(true).open(&path).unwrap());
            while lease.holds() {
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(lease.check().is_err() && !writer.is_finished());
            drop(lease);
            writer.join().unwrap()
        });
        assert!(before.elapsed() < Duration::from_secs(2), "{:?}", before.elapsed());
        assert!(!without_writers(&file));
        drop(writer);
        assert!(without_writers(&file));
        // Nothing is left of it.
        File::options().write(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
    }
}
