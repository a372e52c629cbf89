//! The file system as the ground of the [protocol](crate::protocol).

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use homeport_content::Digest;
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use crate::StoreError;
use crate::clock::{StoreClock, Time};
use crate::error::io_error;
use crate::protocol::{Access, Ground};

const SECOND: Time = 1_000_000_000;

/// The directory of a store.
#[derive(Debug)]
pub(crate) struct Disk {
    clock: StoreClock,
    /// The file on which holds are announced, as locks of the byte that their start names. The
    /// kernel drops them with the process.
    holds: File,
    /// Whether the file system keeps times to the nanosecond.
    exact: bool,
}

impl Disk {
    /// `holds` is the store's lock file, opened for reading and writing.
    pub(crate) fn new(clock: StoreClock, holds: File) -> io::Result<Disk> {
        let odd = Timestamps { last_access: omit(), last_modification: spec(clock.now() | 1) };
        rustix::fs::futimens(&holds, &odd)?;
        let exact = holds.metadata()?.mtime_nsec() == odd.last_modification.tv_nsec;
        Ok(Disk { clock, holds, exact })
    }

    fn hold_lock(
        &self,
        command: libc::c_int,
        kind: libc::c_int,
        start: i64,
        length: i64,
    ) -> io::Result<libc::flock> {
        // SAFETY: all-zero bytes are a valid `flock`: it has integers only.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = kind as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        lock.l_start = start;
        lock.l_len = length;
        // SAFETY: the descriptor is open, and `lock` is a `flock` that the kernel may write to.
        let done = unsafe { libc::fcntl(self.holds.as_raw_fd(), command, &mut lock) };
        if done == -1 { Err(io::Error::last_os_error()) } else { Ok(lock) }
    }
}

impl Ground for Disk {
    type Place = PathBuf;
    type Staged = Path;
    type Shard = Path;
    type Guard = OwnedFd;

    fn now(&self) -> Time {
        self.clock.now()
    }

    fn lock(&self, place: &PathBuf, access: Access) -> Result<Option<OwnedFd>, StoreError> {
        let shard = shard(place);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match rustix::fs::open(shard, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(io_error("open", shard)(errno.into())),
        };
        let operation = match access {
            Access::Shared => FlockOperation::LockShared,
            Access::Alone => FlockOperation::LockExclusive,
        };
        loop {
            match rustix::fs::flock(directory.as_fd(), operation) {
                Ok(()) => return Ok(Some(directory)),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(io_error("lock", shard)(errno.into())),
            }
        }
    }

    fn make_shard(&self, place: &PathBuf) -> Result<(), StoreError> {
        let shard = shard(place);
        fs::create_dir_all(shard).map_err(io_error("make the directory", shard))
    }

    fn look(&self, place: &PathBuf) -> Result<Option<(Time, u64)>, StoreError> {
        match place.symlink_metadata() {
            Ok(found) => {
                let mut time = time_of(found.mtime(), found.mtime_nsec());
                if !self.exact {
                    // The latest that it can have been.
                    time = time - time % SECOND + SECOND - 1;
                }
                Ok(Some((time, found.blocks() * 512)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("look at", place)(error)),
        }
    }

    fn touch(&self, place: &PathBuf, time: Time) -> Result<bool, StoreError> {
        set_time(place, time)
    }

    fn publish(&self, staged: &Path, place: &PathBuf, time: Time) -> Result<(), StoreError> {
        set_time(staged, time)?;
        fs::rename(staged, place).map_err(io_error("rename a new file to", place))
    }

    fn remove(&self, place: &PathBuf) -> Result<(), StoreError> {
        fs::remove_file(place).map_err(io_error("remove", place))
    }

    fn list(&self, shard: &Path) -> Result<Vec<(Digest, PathBuf)>, StoreError> {
        list_shard(shard)
    }

    fn announce(&self, start: Time) {
        if let Err(error) = self.hold_lock(libc::F_OFD_SETLK, libc::F_RDLCK, offset(start), 1) {
            tracing::warn!(%error, "other processes cannot see that content is in use; collect no garbage in them");
        }
    }

    fn retract(&self, start: Time) {
        if let Err(error) = self.hold_lock(libc::F_OFD_SETLK, libc::F_UNLCK, offset(start), 1) {
            tracing::warn!(%error, "other processes see content in use that is not");
        }
    }

    fn oldest_elsewhere(&self, time: Time) -> Option<Time> {
        let mut before = offset(time);
        let mut oldest = None;
        // Each answer is one hold that is in the way, not the first of them.
        while before > 0 {
            match self.hold_lock(libc::F_OFD_GETLK, libc::F_WRLCK, 0, before) {
                Ok(found) if i32::from(found.l_type) == libc::F_UNLCK => break,
                Ok(found) => {
                    before = found.l_start;
                    oldest = Some(before.unsigned_abs());
                }
                Err(error) => {
                    tracing::warn!(%error, "holds of other processes cannot be seen: nothing is collected");
                    return Some(0);
                }
            }
        }
        oldest
    }
}

/// Everything in a shard that has the name of a digest.
fn list_shard(shard: &Path) -> Result<Vec<(Digest, PathBuf)>, StoreError> {
    let entries = match fs::read_dir(shard) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("list", shard)(error)),
    };
    let prefix = shard.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io_error("list", shard))?;
        let name = entry.file_name();
        if let Some(digest) = name.to_str().and_then(|rest| format!("{prefix}{rest}").parse().ok()) {
            found.push((digest, entry.path()));
        }
    }
    Ok(found)
}

fn set_time(path: &Path, time: Time) -> Result<bool, StoreError> {
    let times = Timestamps { last_access: omit(), last_modification: spec(time) };
    match rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(io_error("set the time of", path)(errno.into())),
    }
}

fn shard(place: &Path) -> &Path {
    place.parent().unwrap_or(place)
}

fn omit() -> Timespec {
    Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }
}

fn spec(time: Time) -> Timespec {
    Timespec { tv_sec: (time / SECOND) as i64, tv_nsec: (time % SECOND) as i64 }
}

/// Times before 1970 are as old as can be.
fn time_of(seconds: i64, nanos: i64) -> Time {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(SECOND).saturating_add(nanos.unsigned_abs())
}

fn offset(start: Time) -> i64 {
    i64::try_from(start).unwrap_or(i64::MAX)
}
