//! Hashing of files before anybody is stopped.

use std::collections::HashSet;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use homeport_content::{Digest, FileContent, INLINE_LIMIT, Layered, Leaf, LeafKind, Seen};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, statat};

use super::contents::Contents;
use super::extents::{copy_into, start_writing};
use super::known::{Inode, Known, Stamp};
use super::leases::Lease;
use crate::error::{FsError, io_error};

/// Larger files are worth waiting for their times to settle.
const LARGE: u64 = 1 << 20;

/// The longest such wait.
const PAUSE: Duration = Duration::from_millis(20);

/// Files that wait for a thread; each is open.
const WAITING: usize = 64;

/// Directories deeper than this are left to the scan.
const DEEPEST: usize = 64;

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
    found: SyncSender<Candidate>,
}

impl Contents<'_> {
    /// Hashes the new files below an upper directory that nobody has open for writing, while it is in use, so that less is
    /// left to do when its users are stopped. Where copies cost something and are going to be made, makes them. A scan
    /// takes what was found for the files that did not change since.
    ///
    /// Nothing of this is needed, so what cannot be read is passed over.
    pub(crate) fn survey(&self, upper: &Path, seen: &Layered) -> Result<(), FsError> {
        let root = File::open(upper).map_err(io_error("open", upper))?;
        let (sender, receiver) = sync_channel(WAITING);
        let receiver = Arc::new(Mutex::new(receiver));
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let receiver: Arc<Mutex<Receiver<Candidate>>> = Arc::clone(&receiver);
                scope.spawn(move || {
                    loop {
                        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok(candidate) = next else { break };
                        if let Err(error) = self.survey_file(&candidate) {
                            tracing::debug!(%error, "a file is left to the scan");
                        }
                    }
                });
            }
            // It ends with the last thread.
            drop(receiver);
            let mut search = Search { known: self.known, seen, inodes: HashSet::new(), found: sender };
            search.directory(root.as_fd(), &mut Vec::new(), 0);
        });
        Ok(())
    }

    fn survey_file(&self, candidate: &Candidate) -> io::Result<()> {
        let Candidate { file, size, base } = candidate;
        start_writing(file, 0..*size);
        let (inode, mut stamp) = Stamp::of(&fstat(file)?);
        if stamp.size >= LARGE {
            std::thread::sleep(Duration::from_nanos(stamp.until_settled()).min(PAUSE));
        }
        let lease = Lease::take(file)?;
        stamp = Stamp::of(&fstat(file)?).1;
        if !stamp.is_settled() {
            return Ok(());
        }
        let between = |range: Range<u64>| {
            start_writing(file, range);
            lease.check()
        };
        let digest = match *base {
            Some(base) if self.has_bytes_of(file, stamp.size, &base)? => base,
            base if !self.copies_bytes() => {
                let bases: Vec<Digest> = self.known.last(inode).into_iter().chain(base).collect();
                self.keep_outboard(self.outboard_of(file, stamp.size, &bases, &between)?)
            }
            _ => {
                let (copy, path) = self.fresh_file()?;
                let copied = copy_into(file, &copy, stamp.size, &|| lease.check()).and_then(|()| {
                    let between = |range: Range<u64>| {
                        start_writing(&copy, range);
                        Ok(())
                    };
                    // Nobody waits for the copy to be hashed.
                    drop(lease);
                    self.outboard_of(&copy, stamp.size, &[], &between)
                });
                let digest = self.keep_outboard(copied.inspect_err(|_| drop(std::fs::remove_file(&path)))?);
                self.batch.stage_file(digest, path).map_err(io::Error::other)?;
                digest
            }
        };
        // With a stamp that has not changed, the copy was made, or the file was hashed, while nobody wrote to it.
        if Stamp::of(&fstat(file)?).1 == stamp {
            self.known.remember(inode, stamp, digest, true);
        }
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
        let new = stamp.size > INLINE_LIMIT as u64 && self.known.unchanged(inode, stamp).is_none();
        if !regular || !new || !self.inodes.insert(inode) {
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
            // It is refused only if all threads panicked, which is passed on.
            let _ = self.found.send(Candidate { size: stamp.size, file: file.into(), base });
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
