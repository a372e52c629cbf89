//! Files that are copied into the writable layer before they are used.
//!
//! A shared mapping that was made before the first write to a file of a lower layer never shows that write. Databases
//! map their files, so theirs are copied at once: opened for writing and closed again.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use homeport_content::{Change, Delta, Layered, LeafKind, Seen};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::VolumeError;

/// The most bytes that are copied so, where the file system cannot share blocks.
const COPIED_BYTES: u64 = 256 << 20;

/// Which files to copy.
#[derive(Debug)]
pub(super) struct EarlyCopies {
    names: GlobSet,
    paths: GlobSet,
    /// The mount has files that were copied early.
    copied: bool,
}

impl EarlyCopies {
    /// Patterns with a slash are of paths, others of names.
    pub(super) fn new(patterns: &[String]) -> Result<EarlyCopies, VolumeError> {
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for pattern in patterns {
            let refused = |error: globset::Error| VolumeError::Pattern {
                pattern: pattern.clone(),
                reason: error.to_string(),
            };
            let whole = pattern.trim_start_matches('/');
            let glob = GlobBuilder::new(whole).literal_separator(true).build().map_err(refused)?;
            if pattern.contains('/') {
                paths.add(glob)
            } else {
                names.add(glob)
            };
        }
        let built = |set: GlobSetBuilder| {
            set.build().map_err(|error| VolumeError::Pattern {
                pattern: patterns.join(" "),
                reason: error.to_string(),
            })
        };
        Ok(EarlyCopies { names: built(names)?, paths: built(paths)?, copied: false })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.paths.is_empty()
    }

    fn wants(&self, path: &Path) -> bool {
        path.file_name().is_some_and(|name| self.names.is_match(name)) || self.paths.is_match(path)
    }

    /// Whether files are copied early now that lie in the layers below or in this delta: they should not be in a lower
    /// layer again while the container runs.
    pub(super) fn concerns(&self, delta: &Delta) -> bool {
        if self.is_empty() {
            return false;
        }
        let is_wanted = |path: &[u8]| self.wants(Path::new(OsStr::from_bytes(path)));
        self.copied
            || delta.walk().any(|(path, change)| matches!(change, Change::Leaf(_)) && is_wanted(&path))
    }

    /// Copies the files of `seen` that are wanted, through the mount at `root`. What cannot be copied stays as it is:
    /// it is then copied when it is first written to.
    pub(super) fn make(
        &mut self,
        seen: &Layered,
        root: BorrowedFd<'_>,
        reflink: bool,
    ) -> Result<(), VolumeError> {
        if self.is_empty() {
            return Ok(());
        }
        self.copied = false;
        let mut left = COPIED_BYTES;
        for (path, entry) in seen.walk(b"") {
            let Seen::Leaf { leaf, .. } = entry else { continue };
            let LeafKind::File(content) = &leaf.kind else { continue };
            let path = Path::new(OsStr::from_bytes(&path));
            if !self.wants(path) {
                continue;
            }
            let size = content.size();
            if !reflink && size > left {
                tracing::info!(path = %path.display(), size, "too large to be copied when it is mounted");
                continue;
            }
            left = if reflink { left } else { left - size };
            let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            match openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
                Ok(_) => self.copied = true,
                Err(error) => tracing::warn!(%error, path = %path.display(), "not copied when it is mounted"),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_of_names_or_of_whole_paths() {
        let wanted = |pattern: &str, path: &str| {
            EarlyCopies::new(&[pattern.to_owned()]).unwrap().wants(Path::new(path))
        };
        assert!(wanted("*.mdb", "deep/data.mdb") && !wanted("*.mdb", "deep/data.mdb/x"));
        assert!(wanted("*.sqlite*", "a.sqlite-wal"));
        assert!(wanted("/db/*.db", "db/x.db") && !wanted("/db/*.db", "other/db/x.db"));
        assert!(!wanted("db/*.db", "db/deep/x.db") && wanted("db/**/*.db", "db/deep/x.db"));
        let refused = EarlyCopies::new(&["[".to_owned()]).unwrap_err();
        assert!(refused.to_string().contains("`[`"), "{refused}");
    }
}
