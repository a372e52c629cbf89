//! Whether an upper directory is as it was, without stopping anybody.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use homeport_content::Digest;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;

/// Two changes within this time, in nanoseconds, may have one time. Some file systems count seconds.
const STEP: i128 = 2_000_000_000;

/// Directories deeper than this are not looked into.
const DEEPEST: usize = 1024;

/// A digest of the inode numbers, sizes and times of all that is in a directory; `None` if it cannot be told, or if
/// something changed so recently that one more change might not show.
///
/// If it is the same twice, nothing has changed after the first time, except through files that were open for writing
/// then.
pub(super) fn fingerprint(upper: &Path) -> Option<Digest> {
    let root = File::open(upper).ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_nanos() as i128;
    let mut found = Looked { seen: Vec::new(), newest: 0 };
    found.note(root.as_fd(), c".").ok()?;
    found.directory(root.as_fd(), 0).ok()?;
    (found.newest + STEP <= now).then(|| Digest::of(&found.seen))
}

struct Looked {
    seen: Vec<u8>,
    newest: i128,
}

impl Looked {
    fn directory(&mut self, directory: BorrowedFd<'_>, depth: usize) -> Result<(), Errno> {
        if depth > DEEPEST {
            return Err(Errno::NAMETOOLONG);
        }
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if self.note(directory, name)? == FileType::Directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let below = openat(directory, name, flags, Mode::empty())?;
                self.directory(below.as_fd(), depth + 1)?;
            }
        }
        Ok(())
    }

    fn note(&mut self, directory: BorrowedFd<'_>, name: &CStr) -> Result<FileType, Errno> {
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let nanos = |seconds: i64, nanos: u64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        let changed = nanos(stat.st_ctime, stat.st_ctime_nsec as u64);
        self.newest = self.newest.max(changed);
        self.seen.extend(stat.st_ino.to_le_bytes());
        self.seen.extend(stat.st_size.to_le_bytes());
        self.seen.extend(changed.to_le_bytes());
        self.seen.extend(nanos(stat.st_mtime, stat.st_mtime_nsec as u64).to_le_bytes());
        Ok(FileType::from_raw_mode(stat.st_mode))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn every_change_makes_another_fingerprint_and_recent_ones_make_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("d")).unwrap();
        fs::write(path("d/file"), "x").unwrap();
        assert_eq!(fingerprint(dir.path()), None);
        let wait = || std::thread::sleep(std::time::Duration::from_millis(2100));
        wait();
        let mut last = fingerprint(dir.path());
        assert!(last.is_some());
        assert_eq!(fingerprint(dir.path()), last);
        let changes: [&dyn Fn(); 3] = [
            &|| fs::write(path("d/file"), "y").unwrap(),
            &|| fs::rename(path("d/file"), path("d/other")).unwrap(),
            &|| fs::set_permissions(path("d/other"), fs::Permissions::from_mode(0o600)).unwrap(),
        ];
        for change in changes {
            change();
            wait();
            let now = fingerprint(dir.path());
            assert!(now.is_some() && now != last);
            last = now;
        }
    }
}
