//! What a figure was measured on, and what there is to measure with.

use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use serde::Serialize;

use crate::BenchError;
use crate::error::io_error;

/// A number of bytes, written like `5GB`, `512MiB` or `1000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ByteCount(pub u64);

/// A text that is no number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no number of bytes: write for example 5GB, 512MiB or 1000")]
pub struct ParseByteCountError(String);

const UNITS: [(&str, u64); 11] = [
    ("B", 1),
    ("K", 1000),
    ("KB", 1000),
    ("KiB", 1 << 10),
    ("M", 1_000_000),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("G", 1_000_000_000),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("", 1),
];

impl FromStr for ByteCount {
    type Err = ParseByteCountError;

    fn from_str(text: &str) -> Result<ByteCount, ParseByteCountError> {
        let refused = || ParseByteCountError(text.to_owned());
        let trimmed = text.trim();
        let end = trimmed.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(trimmed.len());
        let (digits, unit) = trimmed.split_at(end);
        let number: u64 = digits.parse().map_err(|_| refused())?;
        UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))
            .and_then(|(_, factor)| number.checked_mul(*factor))
            .map(ByteCount)
            .ok_or_else(refused)
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0 as f64;
        match self.0 {
            0..1_000 => write!(formatter, "{} B", self.0),
            1_000..1_000_000 => write!(formatter, "{:.1} KB", number / 1e3),
            1_000_000..1_000_000_000 => write!(formatter, "{:.1} MB", number / 1e6),
            _ => write!(formatter, "{:.2} GB", number / 1e9),
        }
    }
}

/// The machine, as far as figures depend on it.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Release of the kernel.
    pub kernel: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// What the processor calls itself.
    pub processor: String,
    /// Memory in bytes.
    pub memory: u64,
    /// Type of the file system under test.
    pub file_system: String,
    /// Processes that were running or waiting to run, averaged over a minute, at the start.
    pub load: f64,
}

impl Machine {
    /// Looks at this machine, and at the file system of `dir`.
    pub(crate) fn of(dir: &Path) -> Result<Machine, BenchError> {
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = processors
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
            .map_or("unknown processor", |(_, name)| name.trim());
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Ok(Machine {
            kernel,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: processor.to_owned(),
            memory: memory_field("MemTotal:")?,
            file_system: file_system(dir)?,
            load: load.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default(),
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { kernel, cores, processor, file_system, load, .. } = self;
        let memory = self.memory as f64 / f64::from(1 << 30);
        write!(
            formatter,
            "Linux {kernel}, {cores} cores ({processor}), {memory:.1} GiB, {file_system}, \
             load {load:.2} at the start"
        )
    }
}

/// Bytes that the kernel could give to the page cache without swapping.
pub(crate) fn available_memory() -> Result<u64, BenchError> {
    memory_field("MemAvailable:")
}

/// Bytes free for root on the file system of `dir`.
pub(crate) fn free_disk(dir: &Path) -> Result<u64, BenchError> {
    let found = rustix::fs::statvfs(dir).map_err(io_error("look at the file system of", dir))?;
    Ok(found.f_bfree.saturating_mul(found.f_frsize))
}

/// Bytes that are taken on the file system of a directory.
pub(crate) fn used_disk(dir: &Path) -> Result<u64, BenchError> {
    let found = rustix::fs::statvfs(dir).map_err(io_error("look at the file system of", dir))?;
    Ok((found.f_blocks - found.f_bfree).saturating_mul(found.f_frsize))
}

fn memory_field(name: &str) -> Result<u64, BenchError> {
    let path = Path::new("/proc/meminfo");
    let text = fs::read_to_string(path).map_err(io_error("read", path))?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| {
        let missing = std::io::Error::other(format!("there is no `{name}`"));
        io_error("read", path)(missing)
    })
}

/// The type of the file system of `dir`, as the mount table names it.
fn file_system(dir: &Path) -> Result<String, BenchError> {
    use std::os::unix::fs::MetadataExt;

    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(table).map_err(io_error("read", table))?;
    let device = fs::metadata(dir).map_err(io_error("look at", dir))?.dev();
    let wanted = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let kind = text.lines().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        (front.split(' ').nth(2) == Some(wanted.as_str())).then(|| back.split(' ').next())?
    });
    Ok(kind.unwrap_or("unknown file system").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_counts_are_read_with_decimal_and_binary_units() {
        let read = |text: &str| text.parse().map(|ByteCount(count)| count);
        assert_eq!(read("5GB"), Ok(5_000_000_000));
        assert_eq!(read("50 mb"), Ok(50_000_000));
        assert_eq!(read("2GiB"), Ok(2 << 30));
        assert_eq!(read("12"), Ok(12));
        for text in ["", "GB", "-1", "1.5GB", "5 parsecs", "99999999999GB"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_machine_names_the_file_system_of_proc() {
        assert_eq!(Machine::of(Path::new("/proc")).unwrap().file_system, "proc");
    }
}
