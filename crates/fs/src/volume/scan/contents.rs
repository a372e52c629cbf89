//! How the content of files in an upper directory comes into the store.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use homeport_content::{Digest, FileContent};
use homeport_store::outboard::{Between, MIN_SIZE, Outboard};
use homeport_store::{Batch, Store};
use rustix::fs::Stat;

use super::extents::{clone_into, shared_ranges, start_writing};
use super::known::{Inode, Known, Stamp};
use super::leases;
use crate::error::{FsError, io_error};

/// Files of at most this many bytes are read, hashed and written in one go.
const SMALL: u64 = 64 * 1024;

/// If no more than this differs on disk, it is read and compared instead of hashing the file.
const FEW_BYTES: u64 = 1 << 20;

/// What becomes of files with new content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// They are linked into the batch as they are. When that is published they *are* the objects, and lose mode, owner,
    /// time and attributes: by then nobody uses the directory, what the scan found is on disk, and no other scan of it
    /// will be made, whatever fails.
    Adopt,
    /// They stay as they are. The store gets files of its own, which share all blocks where the file system can do that.
    Copy,
}

/// Takes the contents of files into a batch of the store. Threads may share it.
#[derive(Debug)]
pub(crate) struct Contents<'a> {
    pub(super) store: &'a Store,
    pub(super) batch: &'a Batch<'a>,
    pub(super) known: &'a Known,
    pub(super) manner: Manner,
    leave_out: Option<u64>,
    shares_blocks: OnceLock<bool>,
    /// Bytes of large files that were hashed.
    hashed: AtomicU64,
}

/// A file that is to be taken.
#[derive(Debug)]
pub(super) struct NewFile {
    /// Open for reading only.
    pub(super) file: File,
    pub(super) stat: Stat,
    /// What it may still share blocks with: the content that was at its place before.
    pub(super) base: Option<Digest>,
    /// For messages.
    pub(super) shown: PathBuf,
}

/// What is known of a file's content now.
#[derive(Debug)]
pub(super) enum Taken {
    /// All of it.
    Content(FileContent),
    /// It is in scratch, where nobody can change it, and must still be hashed.
    Unhashed(Unhashed),
}

/// A private copy that is not hashed yet.
#[derive(Debug)]
pub(super) struct Unhashed {
    copy: PathBuf,
    inode: Inode,
    stamp: Stamp,
    certain: bool,
    bases: Vec<Digest>,
}

impl<'a> Contents<'a> {
    /// What is taken comes into the store when the batch is published.
    pub(crate) fn new(store: &'a Store, batch: &'a Batch<'a>, manner: Manner, known: &'a Known) -> Self {
        Contents {
            store,
            batch,
            known,
            manner,
            leave_out: None,
            shares_blocks: OnceLock::new(),
            hashed: AtomicU64::new(0),
        }
    }

    #[cfg(test)]
    pub(super) fn hashed(&self) -> u64 {
        self.hashed.load(Ordering::Relaxed)
    }

    /// Leaves out files of more than this many bytes that are open for writing, as if they had not been changed yet, if
    /// they would have to be copied byte by byte.
    #[must_use]
    pub(crate) fn leaving_out_open_files_above(mut self, bytes: u64) -> Self {
        self.leave_out = Some(bytes);
        self
    }

    /// Changes what becomes of files from here on: a survey comes before it is known whether a mount is in use.
    #[must_use]
    pub(crate) fn in_manner(mut self, manner: Manner) -> Self {
        self.manner = manner;
        self
    }

    /// Whether files are going to be copied byte by byte.
    pub(super) fn copies_bytes(&self) -> bool {
        self.manner == Manner::Copy && !self.shares_blocks()
    }

    /// Whether copies cost nothing on the file system of the store.
    fn shares_blocks(&self) -> bool {
        *self.shares_blocks.get_or_init(|| {
            let probe = || -> io::Result<bool> {
                let (from, to) = (self.fresh_file()?, self.fresh_file()?);
                from.0.write_all_at(&[1; 4096], 0)?;
                clone_into(&from.0, &to.0)
            };
            probe().unwrap_or(false)
        })
    }

    /// Whether a file is not to be taken now.
    pub(super) fn leaves_out(&self, file: &File, size: u64) -> bool {
        let Some(most) = self.leave_out else { return false };
        size > most && !self.shares_blocks() && !leases::without_writers(file)
    }

    /// Takes a file. Unless nobody can write to it, this must be done while nobody does.
    pub(super) fn take(&self, new: &NewFile) -> Result<Taken, FsError> {
        let (inode, stamp) = Stamp::of(&new.stat);
        let content = |digest| Taken::Content(FileContent::Object { digest, size: stamp.size });
        if let Some(digest) = self.known.unchanged(inode, stamp) {
            self.stage(new, digest)?;
            return Ok(content(digest));
        }
        // Asked before the content is read: who comes afterwards changes the stamp.
        let certain = self.manner == Manner::Copy && stamp.is_settled() && leases::without_writers(&new.file);
        if stamp.size <= SMALL {
            let digest = self.take_small(new, stamp.size)?;
            self.known.remember(inode, stamp, digest, certain);
            return Ok(content(digest));
        }
        if let Some(base) = new.base
            && self.has_bytes_of(&new.file, stamp.size, &base).map_err(io_error("read", &new.shown))?
            && self.batch.contains(&base)?
        {
            self.known.remember(inode, stamp, base, certain);
            return Ok(content(base));
        }
        let bases = self.known.last(inode).into_iter().chain(new.base).collect::<Vec<_>>();
        match self.manner {
            Manner::Adopt => {
                let digest = self.hash(&new.file, stamp.size, &bases, &new.shown)?;
                self.stage(new, digest)?;
                Ok(content(digest))
            }
            Manner::Copy => {
                let copy = self.copy(&new.file, stamp.size, &new.shown)?;
                Ok(Taken::Unhashed(Unhashed { copy, inode, stamp, certain, bases }))
            }
        }
    }

    /// Hashes a copy and stages it.
    pub(super) fn finish(&self, unhashed: &Unhashed) -> Result<FileContent, FsError> {
        let Unhashed { copy, inode, stamp, certain, bases } = unhashed;
        let file = File::open(copy).map_err(io_error("open", copy))?;
        let digest = self.hash(&file, stamp.size, bases, copy)?;
        self.batch.stage_file(digest, copy.clone())?;
        self.known.remember(*inode, *stamp, digest, *certain);
        Ok(FileContent::Object { digest, size: stamp.size })
    }

    /// Whether a file has the bytes of an object, found out without reading much of either.
    pub(super) fn has_bytes_of(&self, file: &File, size: u64, base: &Digest) -> io::Result<bool> {
        let Ok(object) = self.store.open_object(base) else { return Ok(false) };
        if object.metadata()?.len() != size {
            return Ok(false);
        }
        let Some(shared) = shared_ranges(file, &object) else { return Ok(false) };
        let rest = gaps(&shared, size);
        if rest.iter().map(|range| range.end - range.start).sum::<u64>() > FEW_BYTES {
            return Ok(false);
        }
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for range in rest {
            for (bytes, source) in [(&mut ours, file), (&mut theirs, &object)] {
                bytes.resize((range.end - range.start) as usize, 0);
                source.read_exact_at(bytes, range.start)?;
            }
            if ours != theirs {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The inner hashes of a file, of which as little is read as can be: it may share blocks with one of these objects.
    pub(super) fn outboard_of(
        &self,
        file: &File,
        size: u64,
        bases: &[Digest],
        between: Between<'_>,
    ) -> io::Result<Outboard> {
        let between = &|range: Range<u64>| {
            self.hashed.fetch_add(range.end - range.start, Ordering::Relaxed);
            between(range)
        };
        let with_base = |base: &Digest| -> Option<io::Result<Outboard>> {
            let outboard = self.store.outboard(base)?;
            let object = self.store.open_object(base).ok()?;
            if object.metadata().ok()?.len() != outboard.size() {
                return None;
            }
            let equal = shared_ranges(file, &object)?;
            Some(outboard.with_changes(file, size, &equal, between))
        };
        let changed = if size < MIN_SIZE { None } else { bases.iter().find_map(with_base) };
        changed.unwrap_or_else(|| Outboard::of(file, between))
    }

    fn hash(&self, file: &File, size: u64, bases: &[Digest], shown: &Path) -> Result<Digest, FsError> {
        let between = |range: Range<u64>| {
            start_writing(file, range);
            Ok(())
        };
        let outboard = self.outboard_of(file, size, bases, &between).map_err(io_error("read", shown))?;
        Ok(self.keep_outboard(outboard))
    }

    /// Keeps the inner hashes for the next change; returns the digest.
    pub(super) fn keep_outboard(&self, outboard: Outboard) -> Digest {
        self.store.keep_outboard(&outboard);
        outboard.digest()
    }
}

/// What `ranges` leave of `0..size`.
fn gaps(ranges: &[Range<u64>], size: u64) -> Vec<Range<u64>> {
    let ends = std::iter::once(0).chain(ranges.iter().map(|range| range.end));
    let starts = ranges.iter().map(|range| range.start).chain(std::iter::once(size));
    ends.zip(starts).map(|(end, start)| end..start).filter(|gap| gap.start < gap.end).collect()
}
