//! Time of the store: one clock for all processes that have it open, which never goes back.
//!
//! What is fresh and what may be garbage is told by modification times, so a clock that somebody
//! sets back must not make new things old. Time since boot cannot be set. The file `clock` says
//! what is added to it, once for each boot; the first process to open the store writes it.
//! Times of earlier boots may be anything: nothing that was under way then is under way now.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::FlockOperation;
use rustix::time::{ClockId, clock_gettime};

use crate::StoreError;
use crate::error::io_error;

/// Nanoseconds since 1970 by the clock of a store.
pub(crate) type Time = u64;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The clock of one store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoreClock {
    /// What is added to the time since boot.
    anchor: Time,
}

impl StoreClock {
    pub(crate) fn open(path: &Path) -> Result<StoreClock, StoreError> {
        let anchor = anchor(path).map_err(io_error("agree on the time in", path))?;
        Ok(StoreClock { anchor })
    }

    pub(crate) fn now(&self) -> Time {
        self.anchor.saturating_add(since_boot())
    }
}

fn anchor(path: &Path) -> io::Result<Time> {
    let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    // Dropped with the file.
    rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
    let mut text = String::new();
    // A file that cannot be understood is that of another boot.
    let _ = file.read_to_string(&mut text);
    if let Some((of, anchor)) = text.trim().split_once(' ')
        && of == boot
        && let Ok(anchor) = anchor.parse()
    {
        return Ok(anchor);
    }
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let anchor = nanos(since_epoch).saturating_sub(since_boot());
    // The new text is as long or longer, and is written over the old: this works on a full disk.
    file.rewind()?;
    file.write_all(format!("{boot} {anchor:020}\n").as_bytes())?;
    let end = file.stream_position()?;
    file.set_len(end)?;
    Ok(anchor)
}

fn since_boot() -> Time {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

pub(crate) fn nanos(duration: std::time::Duration) -> Time {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_open_a_store_in_one_boot_have_one_clock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clock");
        let first = StoreClock::open(&path).unwrap();
        let real = nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
        assert!(first.now().abs_diff(real) < 10_000_000_000, "{} {real}", first.now());
        assert_eq!(StoreClock::open(&path).unwrap().anchor, first.anchor);
        // As after a boot: what was agreed on before does not count.
        std::fs::write(&path, "another-boot 5\n").unwrap();
        let later = StoreClock::open(&path).unwrap();
        assert!(later.now() >= real);
        assert_eq!(StoreClock::open(&path).unwrap().anchor, later.anchor);
    }
}
