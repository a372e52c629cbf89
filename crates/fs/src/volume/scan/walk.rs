//! The walk over an upper directory.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use homeport_content::{
    Change, ChangedDirectory, Delta, Digest, FileContent, INLINE_LIMIT, Leaf, LeafId, LeafKind, MAX_DEPTH,
    Metadata, Seen,
};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};
use rustix::io::Errno;

use super::ScanRequest;
use super::contents::{Contents, NewFile};
use super::intake::Intake;
use super::known::{Inode, Stamp};
use super::leases;
use super::links::{Indexed, Origin, Several};
use super::survey::object_of;
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
    let root = walker.directory(upper.as_fd(), &mut Vec::new(), Some(b""), root)?;
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

struct Walker<'a> {
    request: ScanRequest<'a>,
    contents: &'a Contents<'a>,
    intake: &'a Intake,
    exclude: HashSet<Vec<u8>>,
    leaves: Vec<Leaf>,
    alone: Vec<bool>,
    /// Files that have several names in the directory, by inode number; `None` for one that is left out.
    links: HashMap<u64, Option<LeafId>>,
    /// Leaves of renamed directories, by what they are in the layers below.
    copied: HashMap<Origin, LeafId>,
    read: Vec<Read>,
    index: Option<OwnedFd>,
    indexed: Indexed,
    several: Several<'a>,
}

/// An entry of the directory being read.
struct Entry<'a> {
    parent: BorrowedFd<'a>,
    name: &'a [u8],
    stat: Stat,
    attributes: Attributes,
    /// The path below that shows through at its place, if there is one.
    below: Option<Vec<u8>>,
}

impl Walker<'_> {
    /// The changes in the directory `fd`. `below` is the path in the layers below whose entries show through, if any do.
    fn directory(
        &mut self,
        fd: BorrowedFd<'_>,
        path: &mut Vec<u8>,
        below: Option<&[u8]>,
        metadata: Metadata,
    ) -> Result<ChangedDirectory, FsError> {
        if path.iter().filter(|byte| **byte == b'/').count() >= MAX_DEPTH {
            return Err(self.refuse(path, "it is nested too deep"));
        }
        let mut out = ChangedDirectory::new(metadata);
        let names = names(fd, self.request.upper)?;
        for name in &names {
            let length = push(path, name);
            if !self.exclude.contains(path)
                && let Some(change) = self.entry(fd, name, path, below)?
            {
                out.entries.insert(name.clone(), change);
            }
            path.truncate(length);
        }
        if below != Some(path) {
            self.complete(path, below, &names, &mut out);
        }
        Ok(out)
    }

    /// Says of a directory that does not show what is at its own path below what it shows instead: the entries that are
    /// at `from`, and not those at its own path. `names` are in the upper directory.
    fn complete(
        &mut self,
        path: &mut Vec<u8>,
        from: Option<&[u8]>,
        names: &[Box<[u8]>],
        out: &mut ChangedDirectory,
    ) {
        let seen = self.request.seen;
        let is_here = |name: &[u8]| names.binary_search_by(|known| (**known).cmp(name)).is_ok();
        for (name, shown) in from.and_then(|from| seen.list(from)).unwrap_or_default() {
            let length = push(path, &name);
            if !is_here(&name) && !self.exclude.contains(path) {
                let change = self.copy(shown, &joined(from.unwrap_or_default(), &name), path);
                out.entries.insert(name, change);
            }
            path.truncate(length);
        }
        for (name, _) in seen.list(path).unwrap_or_default() {
            let length = push(path, &name);
            if !is_here(&name) && !self.exclude.contains(path) {
                out.entries.entry(name).or_insert(Change::Removed);
            }
            path.truncate(length);
        }
    }

    /// What is at `from` below, as a change at `path`.
    fn copy(&mut self, shown: Seen<'_>, from: &[u8], path: &mut Vec<u8>) -> Change {
        match shown {
            Seen::Directory(metadata) => {
                let mut out = ChangedDirectory::new(metadata.clone());
                self.complete(path, Some(from), &[], &mut out);
                Change::Directory(Box::new(out))
            }
            Seen::Leaf { leaf, layer, id } => {
                let new = LeafId(self.leaves.len() as u32);
                let copied = *self.copied.entry((layer, id)).or_insert(new);
                if copied == new {
                    self.leaves.push(leaf.clone());
                    self.alone.push(false);
                }
                Change::Leaf(copied)
            }
        }
    }

    /// What became of a name. `None` if nothing did, or it is left out.
    fn entry(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &mut Vec<u8>,
        below: Option<&[u8]>,
    ) -> Result<Option<Change>, FsError> {
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io_error("look at", &self.shown(path)))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let whiteout = kind == FileType::CharacterDevice && stat.st_rdev == 0;
        // A socket is of no use without the process that listens, but it hid what was there.
        if whiteout || kind == FileType::Socket {
            return Ok(self.request.seen.get(path).map(|_| Change::Removed));
        }
        if let Some(known) = self.known_leaf(&stat) {
            return Ok(Some(Change::Leaf(known)));
        }
        let attributes = attributes(&entry_path(parent, name), self.request.id_map)?;
        let mut entry = Entry { parent, name, stat, attributes, below: None };
        entry.below = self.below(&entry, path, below)?;
        if kind == FileType::Directory {
            return Ok(Some(self.subdirectory(entry, path)?));
        }
        Ok(self.leaf(&entry, kind, path)?.map(Change::Leaf))
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

    fn subdirectory(&mut self, entry: Entry<'_>, path: &mut Vec<u8>) -> Result<Change, FsError> {
        let is_directory = |below: &[u8]| matches!(self.request.seen.get(below), Some(Seen::Directory(_)));
        let below = entry.below.filter(|below| is_directory(below));
        if entry.attributes.redirect.is_some() && entry.attributes.opaque.is_none() && below.is_none() {
            return Err(self.refuse(path, "it was moved from a directory that is not there"));
        }
        let fd = openat(entry.parent, entry.name, directory_flags(), Mode::empty())
            .map_err(io_error("open", &self.shown(path)))?;
        let metadata = metadata(&entry.stat, entry.attributes.user, self.request.id_map);
        let directory = self.directory(fd.as_fd(), path, below.as_deref(), metadata)?;
        Ok(Change::Directory(Box::new(directory)))
    }

    /// A file that was read before and is as it was then.
    fn known_leaf(&mut self, stat: &Stat) -> Option<LeafId> {
        if let Some(Some(known)) = self.links.get(&stat.st_ino) {
            return Some(*known);
        }
        let (inode, stamp) = Stamp::of(stat);
        let leaf = self.contents.known.leaf(inode, stamp)?;
        let id = self.push(leaf, stat);
        if stat.st_nlink > 1 {
            self.links.insert(stat.st_ino, Some(id));
        }
        Some(id)
    }

    fn push(&mut self, leaf: Leaf, stat: &Stat) -> LeafId {
        let id = LeafId(self.leaves.len() as u32);
        self.leaves.push(leaf);
        // A file with more names below has a link in the index.
        self.alone.push(stat.st_nlink == 1 && self.index.is_some());
        id
    }

    fn leaf(&mut self, entry: &Entry<'_>, kind: FileType, path: &[u8]) -> Result<Option<LeafId>, FsError> {
        let several_names = entry.stat.st_nlink > 1;
        if let (true, Some(known)) = (several_names, self.links.get(&entry.stat.st_ino)) {
            return Ok(*known);
        }
        let id = self.new_leaf(entry, kind, path)?;
        if several_names {
            self.links.insert(entry.stat.st_ino, id);
        }
        Ok(id)
    }

    fn new_leaf(
        &mut self,
        entry: &Entry<'_>,
        kind: FileType,
        path: &[u8],
    ) -> Result<Option<LeafId>, FsError> {
        let (inode, stamp) = Stamp::of(&entry.stat);
        let mut new = None;
        let mut whole = Some(stamp.is_settled());
        let kind = match kind {
            FileType::RegularFile if entry.attributes.metacopy => {
                LeafKind::File(self.content_below(entry, path)?)
            }
            FileType::RegularFile => {
                let (file, size) = (self.open(entry, path)?, entry.stat.st_size as u64);
                if self.contents.leaves_out(&file, size) {
                    return Ok(None);
                }
                if size <= INLINE_LIMIT as u64 {
                    whole = Some(stamp.is_settled() && leases::without_writers(&file));
                    LeafKind::File(self.inline(file, size, path)?)
                } else {
                    whole = None;
                    new = Some(file);
                    // Its place is held by what no file can have, until the content is known.
                    LeafKind::File(FileContent::Object { digest: Digest::from_bytes([0; 32]), size })
                }
            }
            FileType::Symlink => {
                let target = readlinkat(entry.parent, entry.name, Vec::new())
                    .map_err(io_error("read the link", &self.shown(path)))?;
                LeafKind::Symlink(target.into_bytes().into())
            }
            FileType::Fifo => LeafKind::Fifo,
            FileType::CharacterDevice => LeafKind::CharDevice(entry.stat.st_rdev),
            FileType::BlockDevice => LeafKind::BlockDevice(entry.stat.st_rdev),
            _ => return Err(self.refuse(path, "it is of an unknown type")),
        };
        let metadata = metadata(&entry.stat, entry.attributes.user.clone(), self.request.id_map);
        let id = self.push(Leaf { metadata, kind }, &entry.stat);
        self.read.push(Read { leaf: id, inode, stamp, whole });
        if let Some(file) = new {
            let base = match entry.below.as_deref().and_then(|below| self.request.seen.get(below)) {
                Some(Seen::Leaf { leaf, .. }) => object_of(leaf),
                _ => None,
            };
            self.intake.give(id, NewFile { file, stat: entry.stat, base, shown: self.shown(path) });
        }
        Ok(Some(id))
    }

    /// The content of a file of which only the metadata is in the directory.
    fn content_below(&self, entry: &Entry<'_>, path: &[u8]) -> Result<FileContent, FsError> {
        let seen = match (self.indexed.origins.get(&entry.stat.st_ino), &entry.below) {
            (Some(origin), _) => self.origin(*origin),
            (None, Some(below)) => match self.request.seen.get(below) {
                Some(Seen::Leaf { leaf, .. }) => Some(leaf),
                _ => None,
            },
            (None, None) => None,
        };
        match seen.map(|leaf| &leaf.kind) {
            Some(LeafKind::File(content)) => Ok(content.clone()),
            Some(_) => Err(self.refuse(path, "its content would be that of a special file")),
            None => Err(self.refuse(path, "the file with its content is not there")),
        }
    }

    fn origin(&self, (layer, id): Origin) -> Option<&Leaf> {
        let seen = self.request.seen;
        match layer.checked_sub(1) {
            None => seen.base.leaf(id),
            Some(delta) => seen.deltas.get(delta)?.leaf(id),
        }
    }

    /// Files that are shown under names below, but under none of the directory.
    fn indexed_only(&mut self) -> Result<(), FsError> {
        let Some(index) = self.index.take() else { return Ok(()) };
        for (name, inode) in self.indexed.files.values().cloned().collect::<Vec<_>>() {
            if self.links.contains_key(&inode) {
                continue;
            }
            let stat = statat(&index, &*name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(io_error("look at", self.request.upper))?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            let attributes = attributes(&entry_path(index.as_fd(), &name), self.request.id_map)?;
            let entry = Entry { parent: index.as_fd(), name: &name, stat, attributes, below: None };
            let id = self.new_leaf(&entry, kind, &name)?;
            self.links.insert(inode, id);
        }
        self.index = Some(index);
        Ok(())
    }

    fn changes(mut self, mut root: ChangedDirectory) -> Changes {
        let mut several = HashMap::new();
        let mut replaced = HashMap::new();
        for (origin, (_, inode)) in &self.indexed.files {
            let Some(Some(id)) = self.links.get(inode) else { continue };
            several.insert(*origin, *id);
            // What was copied with a renamed directory is this file too.
            if let Some(copied) = self.copied.remove(origin) {
                replaced.insert(copied, *id);
            }
        }
        if !replaced.is_empty() {
            replace(&mut root, &replaced);
        }
        for (origin, id) in &self.copied {
            if self.several.has(*origin) {
                several.insert(*origin, *id);
            }
        }
        let delta = Delta { root, leaves: self.leaves };
        Changes { delta, alone: self.alone, several, read: self.read }
    }

    fn open(&self, entry: &Entry<'_>, path: &[u8]) -> Result<File, FsError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NOATIME | OFlags::CLOEXEC;
        let fd = openat(entry.parent, entry.name, flags, Mode::empty())
            .map_err(io_error("open", &self.shown(path)))?;
        Ok(fd.into())
    }

    fn inline(&self, file: File, size: u64, path: &[u8]) -> Result<FileContent, FsError> {
        let mut bytes = Vec::with_capacity(size as usize);
        file.take(INLINE_LIMIT as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(io_error("read", &self.shown(path)))?;
        if bytes.len() as u64 != size {
            return Err(self.refuse(path, "it changes while it is read"));
        }
        Ok(FileContent::Inline(bytes.into()))
    }

    fn shown(&self, path: &[u8]) -> PathBuf {
        self.request.upper.join(OsString::from_vec(path.to_vec()))
    }

    fn refuse(&self, path: &[u8], reason: &str) -> FsError {
        FsError::LayerEntry {
            layer: self.request.upper.to_owned(),
            path: String::from_utf8_lossy(path).into_owned(),
            reason: reason.to_owned(),
        }
    }
}

/// Puts other leaves in place of some.
fn replace(directory: &mut ChangedDirectory, leaves: &HashMap<LeafId, LeafId>) {
    for change in directory.entries.values_mut() {
        match change {
            Change::Directory(below) => replace(below, leaves),
            Change::Leaf(id) => *id = leaves.get(id).copied().unwrap_or(*id),
            Change::Removed => {}
        }
    }
}

/// A path for calls that take no directory descriptor; short, however deep the directory is.
fn entry_path(parent: BorrowedFd<'_>, name: &[u8]) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd()));
    path.push(OsString::from_vec(name.to_vec()));
    path
}

/// Appends a name; returns the length before.
fn push(path: &mut Vec<u8>, name: &[u8]) -> usize {
    let length = path.len();
    if length > 0 {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    length
}

fn joined(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}
