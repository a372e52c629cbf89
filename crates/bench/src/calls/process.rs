//! What a process has used, as the kernel counts it.

use std::fs;
use std::path::PathBuf;

use crate::BenchError;
use crate::error::io_error;

/// Seconds of CPU time that a process has used so far, by all of its threads. The kernel counts in
/// steps of a few milliseconds.
pub(super) fn cpu_seconds(pid: u32) -> Result<f64, BenchError> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let text = fs::read_to_string(&path).map_err(io_error("read", &path))?;
    let ticks = ticks(&text).ok_or_else(|| {
        let unknown = std::io::Error::other("it has an unknown form");
        io_error("understand", &path)(unknown)
    })?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Bytes of memory that a process has now.
pub(super) fn resident_bytes(pid: u32) -> Result<u64, BenchError> {
    let path = PathBuf::from(format!("/proc/{pid}/statm"));
    let text = fs::read_to_string(&path).map_err(io_error("read", &path))?;
    let pages: Option<u64> = text.split(' ').nth(1).and_then(|number| number.parse().ok());
    pages.map(|pages| pages * rustix::param::page_size() as u64).ok_or_else(|| {
        let unknown = std::io::Error::other("it has an unknown form");
        io_error("understand", &path)(unknown)
    })
}

/// User and system time. The name of the program comes before, and may have spaces and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let (user, system): (u64, u64) = (fields.get(11)?.parse().ok()?, fields.get(12)?.parse().ok()?);
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_found_behind_any_name_of_a_program() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 120 30 9 9 20 0 1 0 5 6 7";
        assert_eq!(ticks(stat), Some(150));
        assert_eq!(ticks("7 (x) S 1"), None);
    }

    #[test]
    fn this_process_has_used_memory() {
        assert!(resident_bytes(std::process::id()).unwrap() > 100_000);
        cpu_seconds(std::process::id()).unwrap();
    }
}
