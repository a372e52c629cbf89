//! Which process has a file of a Volume open.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A file of a Volume, and the process that stands in the way with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenFile {
    /// As the container sees it.
    pub(super) path: PathBuf,
    /// As the container numbers it.
    pub(super) pid: u32,
    pub(super) process: String,
}

/// What counts as open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Descriptors and mappings through which a file can change.
    Writers,
    /// All descriptors and mappings of files.
    Any,
}

/// Where to look: the mounts of the Volume's places, and the device of its overlay.
#[derive(Debug, Clone, Copy)]
pub(super) struct OnMounts<'a> {
    pub(super) ids: &'a [u64],
    pub(super) device: u64,
}

/// The first file found among those that the processes have open. Processes that end meanwhile have none.
pub(super) fn find(processes: &[u32], mounts: OnMounts<'_>, wanted: Wanted) -> Option<OpenFile> {
    processes.iter().find_map(|pid| {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let path = descriptor(&proc, mounts, wanted).or_else(|| mapping(&proc, mounts, wanted))?;
        let process = fs::read_to_string(proc.join("comm")).unwrap_or_default().trim_end().to_owned();
        Some(OpenFile { path, pid: pid_inside(&proc).unwrap_or(*pid), process })
    })
}

fn descriptor(proc: &Path, mounts: OnMounts<'_>, wanted: Wanted) -> Option<PathBuf> {
    fs::read_dir(proc.join("fd")).ok()?.flatten().find_map(|entry| {
        let about = fs::read_to_string(proc.join("fdinfo").join(entry.file_name())).ok()?;
        let (flags, mount) = flags_and_mount(&about)?;
        let writes = flags & libc::O_ACCMODE as u32 != libc::O_RDONLY as u32;
        let path_only = flags & libc::O_PATH as u32 != 0;
        if path_only || !mounts.ids.contains(&mount) || (wanted == Wanted::Writers && !writes) {
            return None;
        }
        let place = entry.path();
        // A directory has no content that could go unseen.
        let is_file = fs::metadata(&place).is_ok_and(|about| !about.is_dir());
        is_file.then(|| fs::read_link(&place).ok().map(|path| without_note(&path)))?
    })
}

/// The flags with which a descriptor was opened, and the mount that it is on, as `fdinfo` tells them.
fn flags_and_mount(about: &str) -> Option<(u32, u64)> {
    let field = |name: &str| {
        let line = about.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim)
    };
    let flags = u32::from_str_radix(field("flags:")?, 8).ok()?;
    Some((flags, field("mnt_id:")?.parse().ok()?))
}

fn mapping(proc: &Path, mounts: OnMounts<'_>, wanted: Wanted) -> Option<PathBuf> {
    let table = fs::read(proc.join("maps")).ok()?;
    table.split(|byte| *byte == b'\n').find_map(|line| mapped_file(line, mounts.device, wanted))
}

/// The file of one line of `maps`, if it is on this device: range, rights, offset, device, inode, path.
fn mapped_file(line: &[u8], device: u64, wanted: Wanted) -> Option<PathBuf> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let (_range, rights, _offset) = (fields.next()?, fields.next()?, fields.next()?);
    let (number, _inode, path) = (fields.next()?, fields.next()?, fields.next()?);
    let expected = format!("{:02x}:{:02x}", rustix::fs::major(device), rustix::fs::minor(device));
    let shared_for_writing = rights.get(1) == Some(&b'w') && rights.get(3) == Some(&b's');
    if number != expected.as_bytes() || (wanted == Wanted::Writers && !shared_for_writing) {
        return None;
    }
    let path = PathBuf::from(OsString::from_vec(path.trim_ascii_start().to_vec()));
    Some(without_note(&path))
}

/// The kernel notes it beside the name when the file was removed.
fn without_note(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    let name = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
    PathBuf::from(OsString::from_vec(name.to_vec()))
}

/// The id that the process has in the innermost of its namespaces.
fn pid_inside(proc: &Path) -> Option<u32> {
    let status = fs::read_to_string(proc.join("status")).ok()?;
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    ids.split_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_and_mount_of_a_descriptor_are_read() {
        assert_eq!(
            flags_and_mount("pos:\t0\nflags:\t0100002\nmnt_id:\t77\nino:\t9\n"),
            Some((0o100_002, 77))
        );
        assert_eq!(flags_and_mount("pos:\t0\n"), None);
    }

    #[test]
    fn mappings_count_by_device_and_those_that_write_by_their_rights() {
        let device = rustix::fs::makedev(0, 0x3a);
        let shared = b"7f00-7f01 rw-s 00000000 00:3a 12     /vol/a b (deleted)";
        let private = b"7f00-7f01 rw-p 00000000 00:3a 12                         /vol/c";
        assert_eq!(mapped_file(shared, device, Wanted::Writers), Some("/vol/a b".into()));
        assert_eq!(mapped_file(private, device, Wanted::Writers), None);
        assert_eq!(mapped_file(private, device, Wanted::Any), Some("/vol/c".into()));
        assert_eq!(mapped_file(private, device + 1, Wanted::Any), None);
        assert_eq!(mapped_file(b"7f00-7f01 rw-p 00000000 00:00 0 ", device, Wanted::Any), None);
    }
}
