//! The walk over an upper directory.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use homeport_content::{Change, ChangedDirectory, Delta, Leaf, LeafId, MAX_DEPTH, Metadata, Seen};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;

use super::ScanRequest;
use super::contents::Contents;
use super::intake::Intake;
use super::known::{Inode, Stamp};
use super::links::{Indexed, Origin, Several};
use crate::commit::upper::{Attributes, attributes, metadata};
use crate::error::{FsError, io_error};

/// What a walk found. The contents of some leaves are still to come.
pub(super) struct Changes {
    pub(super) delta: Delta,
    /// For each leaf, whether it has no other name, neither in the directory nor below.
    pub(super) alone: Vec<bool>,
    /// Leaves that may have more names below, by what they were there.
    pub(super) several: HashMap<Origin, LeafId>,
    /// Which of the leaves were read, and of which files.
    pub(super) read: Vec<Read>,
}

/// A file that was read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) leaf: LeafId,
    pub(super) inode: Inode,
    pub(super) stamp: Stamp,
    /// For what has no content of its own in the store: whether the stamp says all of it from now on.
    pub(super) whole: Option<bool>,
}

/// Reads the upper directory; contents go to `intake`.
pub(super) fn walk(
    request: ScanRequest<'_>,
    contents: &Contents<'_>,
    intake: &Intake,
) -> Result<Changes, FsError> {
    let open = |path: &Path| File::open(path).map_err(io_error("open", path));
    let upper = open(request.upper)?;
    let index = match request
        .index
        .map(|index| (index, rustix::fs::open(index.dir, directory_flags(), Mode::empty())))
    {
        None | Some((_, Err(Errno::NOENT))) => None,
        Some((index, opened)) => Some((index, opened.map_err(io_error("open", index.dir))?)),
    };
    let indexed = match &index {
        None => Indexed::default(),
        Some((index, fd)) => {
            let names = names(fd.as_fd(), index.dir)?;
            Indexed::read(index, fd.as_fd(), names, request.seen, contents.known)?
        }
    };
    let found = attributes(request.upper, request.id_map)?;
    let stat = rustix::fs::fstat(&upper).map_err(io_error("look at", request.upper))?;
    let mut walker = Walker {
        request,
        contents,
        intake,
        exclude: request.exclude.iter().map(|path| normal(path)).collect(),
        leaves: Vec::new(),
        alone: Vec::new(),
        links: HashMap::new(),
        copied: HashMap::new(),
        read: Vec::new(),
        index: index.map(|(_, fd)| fd),
        indexed,
        several: Several::new(request.seen),
    };
    let root = metadata(&stat, found.user, request.id_map);
    let (root, _) = walker.directory(upper.as_fd(), &mut Vec::new(), Some(b""), root)?;
    walker.indexed_only()?;
    Ok(walker.changes(root))
}

fn normal(path: &str) -> Vec<u8> {
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    parts.collect::<Vec<_>>().join("/").into_bytes()
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn names(fd: BorrowedFd<'_>, shown: &Path) -> Result<Vec<Box<[u8]>>, FsError> {
    let failed = |errno: Errno| io_error("list a directory of", shown)(errno);
    let mut names = Vec::new();
    for entry in Dir::read_from(fd).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.into());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A walk under way.
pub(super) struct Walker<'a> {
    pub(super) request: ScanRequest<'a>,
    pub(super) contents: &'a Contents<'a>,
    pub(super) intake: &'a Intake,
    pub(super) exclude: HashSet<Vec<u8>>,
    pub(super) leaves: Vec<Leaf>,
    pub(super) alone: Vec<bool>,
    /// Files that have several names in the directory, by inode number; `None` for one that is left out.
    pub(super) links: HashMap<u64, Option<LeafId>>,
    /// Leaves of renamed directories, by what they are in the layers below.
    pub(super) copied: HashMap<Origin, LeafId>,
    pub(super) read: Vec<Read>,
    pub(super) index: Option<OwnedFd>,
    pub(super) indexed: Indexed,
    pub(super) several: Several<'a>,
}

/// What became of a name.
enum Became {
    Nothing,
    /// Whatever it is.
    LeftOut,
    Changed(Change),
}

/// An entry of the directory being read.
pub(super) struct Entry<'a> {
    pub(super) parent: BorrowedFd<'a>,
    pub(super) name: &'a [u8],
    pub(super) stat: Stat,
    pub(super) attributes: Attributes,
    /// The path below that shows through at its place, if there is one.
    pub(super) below: Option<Vec<u8>>,
}

impl Walker<'_> {
    /// The changes in the directory `fd`, and whether it has nothing new but what is left out. `below` is the path in the
    /// layers below whose entries show through, if any do.
    fn directory(
        &mut self,
        fd: BorrowedFd<'_>,
        path: &mut Vec<u8>,
        below: Option<&[u8]>,
        metadata: Metadata,
    ) -> Result<(ChangedDirectory, bool), FsError> {
        if path.iter().filter(|byte| **byte == b'/').count() >= MAX_DEPTH {
            return Err(self.refuse(path, "it is nested too deep"));
        }
        let mut out = ChangedDirectory::new(metadata);
        let names = names(fd, self.request.upper)?;
        let (mut left_out, mut changed) = (false, false);
        for name in &names {
            let length = push(path, name);
            let became = match self.exclude.contains(path) {
                true => Became::LeftOut,
                false => self.entry(fd, name, path, below)?,
            };
            match became {
                Became::Nothing => {}
                Became::LeftOut => left_out = true,
                Became::Changed(change) => {
                    // A directory that is only changed inside leaves its parent as it was.
                    changed |=
                        !matches!(change, Change::Directory(_)) || self.shown_directory(path).is_none();
                    out.entries.insert(name.clone(), change);
                }
            }
            path.truncate(length);
        }
        if below != Some(path) {
            self.complete(path, below, &names, &mut out);
        } else if left_out
            && !changed
            && let Some(shown) = self.shown_directory(path)
        {
            // Its time says nothing but that there is what is left out.
            out.metadata.mtime = shown.mtime;
        }
        Ok((out, left_out && !changed))
    }

    /// Metadata of the directory that is at a path below, if there is one.
    fn shown_directory(&self, path: &[u8]) -> Option<&Metadata> {
        match self.request.seen.get(path) {
            Some(Seen::Directory(metadata)) => Some(metadata),
            _ => None,
        }
    }

    /// What became of a name.
    fn entry(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &mut Vec<u8>,
        below: Option<&[u8]>,
    ) -> Result<Became, FsError> {
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io_error("look at", &self.shown(path)))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let whiteout = kind == FileType::CharacterDevice && stat.st_rdev == 0;
        // A socket is of no use without the process that listens, but it hid what was there.
        if whiteout || kind == FileType::Socket {
            let hides = self.request.seen.get(path).is_some();
            return Ok(if hides { Became::Changed(Change::Removed) } else { Became::Nothing });
        }
        if let Some(known) = self.known_leaf(&stat) {
            return Ok(Became::Changed(Change::Leaf(known)));
        }
        let attributes = attributes(&entry_path(parent, name), self.request.id_map)?;
        let mut entry = Entry { parent, name, stat, attributes, below: None };
        entry.below = self.below(&entry, path, below)?;
        if kind == FileType::Directory {
            return self.subdirectory(entry, path);
        }
        let leaf = self.leaf(&entry, kind, path)?;
        Ok(leaf.map_or(Became::LeftOut, |id| Became::Changed(Change::Leaf(id))))
    }

    /// The path below that an entry belongs to, in a directory that belongs to `parent`.
    fn below(
        &self,
        entry: &Entry<'_>,
        path: &[u8],
        parent: Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>, FsError> {
        match entry.attributes.opaque.as_deref() {
            None => {}
            Some(b"y") => return Ok(None),
            Some(_) => return Err(self.refuse(path, "it is opaque in a way that is not known")),
        }
        let is_directory = FileType::from_raw_mode(entry.stat.st_mode) == FileType::Directory;
        // A file with content of its own keeps the redirect of a time when it had none.
        let counts = is_directory || entry.attributes.metacopy;
        match entry.attributes.redirect.as_deref().filter(|_| counts) {
            None => Ok(parent.map(|parent| joined(parent, entry.name))),
            Some(redirect) => match (redirect.strip_prefix(b"/"), parent) {
                (Some(absolute), _) => Ok(Some(absolute.to_vec())),
                (None, Some(parent)) if !redirect.contains(&b'/') => Ok(Some(joined(parent, redirect))),
                _ => Err(self.refuse(path, "it was moved from a place that cannot be told")),
            },
        }
    }

    fn subdirectory(&mut self, entry: Entry<'_>, path: &mut Vec<u8>) -> Result<Became, FsError> {
        let below = entry.below.filter(|below| self.shown_directory(below).is_some());
        if entry.attributes.redirect.is_some() && entry.attributes.opaque.is_none() && below.is_none() {
            return Err(self.refuse(path, "it was moved from a directory that is not there"));
        }
        let fd = openat(entry.parent, entry.name, directory_flags(), Mode::empty())
            .map_err(io_error("open", &self.shown(path)))?;
        let metadata = metadata(&entry.stat, entry.attributes.user, self.request.id_map);
        let (directory, left_out) = self.directory(fd.as_fd(), path, below.as_deref(), metadata)?;
        // It was made for what is left out.
        if left_out
            && directory.entries.is_empty()
            && below.is_none()
            && self.request.seen.get(path).is_none()
        {
            return Ok(Became::LeftOut);
        }
        Ok(Became::Changed(Change::Directory(Box::new(directory))))
    }

    pub(super) fn shown(&self, path: &[u8]) -> PathBuf {
        self.request.upper.join(OsString::from_vec(path.to_vec()))
    }

    pub(super) fn refuse(&self, path: &[u8], reason: &str) -> FsError {
        FsError::LayerEntry {
            layer: self.request.upper.to_owned(),
            path: String::from_utf8_lossy(path).into_owned(),
            reason: reason.to_owned(),
        }
    }
}

/// A path for calls that take no directory descriptor; short, however deep the directory is.
pub(super) fn entry_path(parent: BorrowedFd<'_>, name: &[u8]) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd()));
    path.push(OsString::from_vec(name.to_vec()));
    path
}

/// Appends a name; returns the length before.
pub(super) fn push(path: &mut Vec<u8>, name: &[u8]) -> usize {
    let length = path.len();
    if length > 0 {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    length
}

pub(super) fn joined(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}
