//! From the upper directory of an overlay to a delta over what it was mounted over.
//!
//! The directory is read as the kernel wrote it: whiteouts, opaque and renamed directories, files of which only the
//! metadata was copied up, files with more names than the directory shows. What was copied up and is as it was is no
//! change. New contents go through [`Contents`], most of them while the walk goes on.
//!
//! Nothing in the directory is altered by a scan. It must not be written to meanwhile, nor through the mount.

mod contents;
mod extents;
mod intake;
mod known;
mod leaf;
mod leases;
mod links;
mod moved;
mod prune;
mod staging;
mod survey;
mod walk;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;

use std::path::{Path, PathBuf};

use homeport_content::{Delta, Layered, LeafId, LeafKind};

pub(crate) use contents::{Contents, Manner};
pub(crate) use known::Known;
pub(crate) use links::Index;

use crate::IdMap;
use crate::error::FsError;
use contents::Unhashed;
use walk::Read;

/// What to scan, and against what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScanRequest<'a> {
    /// The upper directory. Not written to during the scan.
    pub(crate) upper: &'a Path,
    /// Where the kernel keeps track of hard links, if the overlay was mounted with `index=on`.
    pub(crate) index: Option<Index<'a>>,
    /// The layers that the overlay was mounted over. The delta is one over these. Contents of theirs can be named in it,
    /// so they must be pinned in the store.
    pub(crate) seen: &'a Layered,
    /// The map that the overlay was mounted with.
    pub(crate) id_map: Option<&'a IdMap>,
    /// Paths from the root whose changes, and those below them, are left out, with the directories that were made for
    /// nothing else.
    pub(crate) exclude: &'a [&'a str],
}

/// All changes in an upper directory; the content of some files is known to the store, but has no digest yet.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    upper: PathBuf,
    seen: &'a Layered,
    delta: Delta,
    /// For each leaf of the delta, whether it can have no other name than its one here.
    alone: Vec<bool>,
    unhashed: Vec<(LeafId, Unhashed)>,
    read: Vec<Read>,
}

/// Reads the upper directory and makes all of it a delta. What the delta names is in the batch of `contents` or in the
/// store.
///
/// The delta has no entries if no entry changed. Its root always has the metadata of the root.
pub(crate) fn scan(request: ScanRequest<'_>, contents: &Contents<'_>) -> Result<Delta, FsError> {
    look(request, contents)?.finish(contents)
}

/// The part of a scan during which nobody may write. With [`Manner::Copy`], what is still to be hashed are private copies.
pub(crate) fn look<'a>(request: ScanRequest<'a>, contents: &Contents<'_>) -> Result<Found<'a>, FsError> {
    let walked = intake::during(contents, |intake| walk::walk(request, contents, intake))?;
    let (mut changes, taken) = walked;
    let unhashed = intake::settle(&mut changes.delta, taken);
    links::bring_along(&mut changes.delta, request.seen, &changes.several);
    changes.alone.resize(changes.delta.leaves.len(), false);
    Ok(Found {
        upper: request.upper.to_owned(),
        seen: request.seen,
        delta: changes.delta,
        alone: changes.alone,
        unhashed,
        read: changes.read,
    })
}

impl Found<'_> {
    /// Hashes what is left to be hashed.
    pub(crate) fn finish(mut self, contents: &Contents<'_>) -> Result<Delta, FsError> {
        for (id, content) in intake::hash(contents, &self.unhashed)? {
            if let Some(leaf) = self.delta.leaves.get_mut(id.0 as usize) {
                leaf.kind = LeafKind::File(content);
            }
        }
        for Read { leaf, inode, stamp, whole } in &self.read {
            match (self.delta.leaf(*leaf), whole) {
                (Some(leaf), None) => contents.known.complete(*inode, *stamp, leaf),
                (Some(leaf), Some(certain)) => contents.known.remember_whole(*inode, *stamp, leaf, *certain),
                (None, _) => {}
            }
        }
        prune::prune(&mut self.delta, self.seen, &self.alone);
        self.delta.validate().map_err(|invalid| FsError::LayerEntry {
            layer: self.upper,
            path: invalid.path.trim_start_matches('/').to_owned(),
            reason: invalid.reason.to_owned(),
        })?;
        Ok(self.delta)
    }
}
