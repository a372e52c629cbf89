//! Hashing of large files before anybody is stopped.

use std::collections::HashSet;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use homeport_content::{Digest, FileContent, Layered, Leaf, LeafKind, Seen};
use homeport_store::outboard::Outboard;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, statat};

use super::contents::Contents;
use super::extents::{copy_into, start_writing};
use super::known::{Inode, Known, Stamp};
use super::leases::{Lease, Leases};
use crate::error::{FsError, io_error};

/// Smaller files are hashed quickly enough while the container is stopped.
const LARGE: u64 = 1 << 20;

/// Most files of which leases are held at one time; each takes descriptors.
const MOST: usize = 64;

/// Directories deeper than this are left to the scan.
const DEEPEST: usize = 64;

/// What a survey found out about a file, and the leases by which it knows that it is still so.
#[derive(Debug)]
pub(super) struct Surveyed {
    stamp: Stamp,
    digest: Digest,
    /// A copy in scratch, where copies cost something.
    copy: Option<PathBuf>,
    lease: Lease,
    /// Keeps the thread that watches the leases.
    _leases: Arc<Leases>,
}

impl Surveyed {
    /// Digest and copy, if the file is as it was.
    pub(super) fn still(self, stamp: Stamp) -> Option<(Digest, Option<PathBuf>)> {
        (self.stamp == stamp && self.lease.holds()).then_some((self.digest, self.copy))
    }
}

/// A file that is worth a look.
struct Candidate {
    size: u64,
    file: File,
    /// What was at its place before.
    base: Option<Digest>,
}

/// The walk over a directory that is in use.
struct Search<'a> {
    known: &'a Known,
    seen: &'a Layered,
    inodes: HashSet<Inode>,
    found: Vec<Candidate>,
}

impl Contents<'_> {
    /// Hashes the large new files below an upper directory that nobody has open for writing, while it is in use, so
    /// that less is left to do when its users are stopped. Where copies cost something and are going to be made, makes
    /// them. What is found is used by the scan for files that nobody opened for writing until then.
    ///
    /// Nothing of this is needed, so what cannot be read is passed over.
    pub(crate) fn survey(&self, upper: &Path, seen: &Layered) -> Result<(), FsError> {
        let root = File::open(upper).map_err(io_error("open", upper))?;
        let mut search = Search { known: self.known, seen, inodes: HashSet::new(), found: Vec::new() };
        search.directory(root.as_fd(), &mut Vec::new(), 0);
        let mut found = search.found;
        if found.is_empty() {
            return Ok(());
        }
        // The largest are worth the most.
        found.sort_by_key(|candidate| std::cmp::Reverse(candidate.size));
        found.truncate(MOST);
        let leases = Arc::new(Leases::new().map_err(io_error("start a thread for", upper))?);
        let next = AtomicUsize::new(0);
        let threads = std::thread::available_parallelism().map_or(2, usize::from).min(found.len());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(candidate) = found.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = self.survey_file(candidate, &leases) {
                            tracing::debug!(%error, "a file is left to the scan");
                        }
                    }
                });
            }
        });
        Ok(())
    }

    fn survey_file(&self, candidate: &Candidate, leases: &Arc<Leases>) -> io::Result<()> {
        let file = &candidate.file;
        start_writing(file, 0..candidate.size);
        let lease = leases.take(file)?;
        let (_, fresh) = Stamp::of(&fstat(file)?);
        std::thread::sleep(Duration::from_nanos(fresh.until_settled()));
        let (inode, stamp) = Stamp::of(&fstat(file)?);
        if !stamp.is_settled() {
            return Ok(());
        }
        let holds = || match lease.holds() {
            true => Ok(()),
            false => Err(io::Error::other("somebody opened it for writing")),
        };
        let mut copy = None;
        let digest = match candidate.base {
            Some(base) if self.has_bytes_of(file, stamp.size, &base)? => base,
            _ if self.copies_bytes() => {
                let (private, path) = self.fresh_file()?;
                copy = Some(path);
                copy_into(file, &private, stamp.size, &holds)?;
                let between = |range: Range<u64>| {
                    start_writing(&private, range);
                    holds()
                };
                self.keep_outboard(Outboard::of(&private, &between)?)
            }
            base => {
                let bases: Vec<Digest> = self.known.last(inode).into_iter().chain(base).collect();
                self.keep_outboard(self.outboard_of(file, stamp.size, &bases, &|_| holds())?)
            }
        };
        holds()?;
        if Stamp::of(&fstat(file)?).1 != stamp {
            return Ok(());
        }
        let surveyed = Surveyed { stamp, digest, copy, lease, _leases: Arc::clone(leases) };
        self.surveyed.lock().unwrap_or_else(PoisonError::into_inner).insert(inode, surveyed);
        Ok(())
    }
}

impl Search<'_> {
    fn directory(&mut self, directory: BorrowedFd<'_>, path: &mut Vec<u8>, depth: usize) {
        let Ok(entries) = Dir::read_from(directory) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let length = path.len();
            path.push(b'/');
            path.extend_from_slice(name.to_bytes());
            match entry.file_type() {
                FileType::Directory if depth < DEEPEST => {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    if let Ok(below) = openat(directory, name, flags, Mode::empty()) {
                        self.directory(below.as_fd(), path, depth + 1);
                    }
                }
                FileType::RegularFile | FileType::Unknown => self.file(directory, name, path),
                _ => {}
            }
            path.truncate(length);
        }
    }

    fn file(&mut self, directory: BorrowedFd<'_>, name: &CStr, path: &[u8]) {
        let Ok(stat) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { return };
        let (inode, stamp) = Stamp::of(&stat);
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let new = stamp.size >= LARGE && self.known.unchanged(inode, stamp).is_none();
        if !regular || !new || self.found.len() >= 4 * MOST || !self.inodes.insert(inode) {
            return;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NOATIME | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = openat(directory, name, flags, Mode::empty()) else { return };
        // Somebody may have put something else there, and nothing is to be read of what is only metadata.
        let same = fstat(&file).is_ok_and(|stat| Stamp::of(&stat).0 == inode);
        let metacopy = rustix::fs::fgetxattr(&file, "trusted.overlay.metacopy", &mut [0_u8; 64][..]).is_ok();
        if same && !metacopy {
            let base = match self.seen.get(path) {
                Some(Seen::Leaf { leaf, .. }) => object_of(leaf),
                _ => None,
            };
            self.found.push(Candidate { size: stamp.size, file: file.into(), base });
        }
    }
}

/// The digest of a leaf's content, if it is an object.
pub(super) fn object_of(leaf: &Leaf) -> Option<Digest> {
    match &leaf.kind {
        LeafKind::File(FileContent::Object { digest, .. }) => Some(*digest),
        _ => None,
    }
}
