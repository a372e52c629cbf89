//! The walk over an upper directory.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use homeport_content::{
    Digest, Directory, Entry, EntryRef, FileContent, INLINE_LIMIT, Leaf, LeafId, LeafKind, MAX_DEPTH,
    Metadata, Tree,
};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, readlinkat, renameat, statat};

use super::Taken;
use super::upper::{Attributes, attributes, metadata};
use crate::IdMap;
use crate::error::{FsError, io_error};

/// What to scan, and against what.
pub(super) struct Scan<'a> {
    /// The layer's directory, for messages.
    pub(super) layer: &'a Path,
    pub(super) upper: &'a Path,
    /// Where files with new content are moved to.
    pub(super) taken: &'a Path,
    pub(super) image: &'a Tree,
    /// What all lower layers show together. Its first leaves are those of `image`.
    pub(super) merged: &'a Tree,
    pub(super) exclude: &'a [&'a str],
    pub(super) id_map: Option<&'a IdMap>,
}

/// A tree in which the leaves of `taken` still need their content.
pub(super) struct Scanned {
    pub(super) tree: Tree,
    pub(super) taken: Taken,
}

/// Reads the upper directory and moves files with new content aside.
pub(super) fn scan(scan: Scan<'_>) -> Result<Scanned, FsError> {
    let open = |path: &Path| File::open(path).map_err(io_error("open", path));
    let upper = open(scan.upper)?;
    let taken_dir = open(scan.taken)?;
    let mut root = scan.image.root.clone();
    let found = attributes(scan.upper, scan.id_map)?;
    let stat = rustix::fs::fstat(&upper).map_err(io_error("look at", scan.upper))?;
    let exclude = scan.exclude.iter().map(|path| normal(path)).collect();
    let mut scanner = Scanner {
        leaves: scan.merged.leaves.clone(),
        links: HashMap::new(),
        taken: Vec::new(),
        taken_dir,
        exclude,
        scan,
    };
    let mut path = Vec::new();
    let changes = scanner.directory(upper.as_fd(), &mut path, Some(b""), &mut root)?;
    // The root was given the image's metadata when the layer was first mounted.
    let seen = metadata(&stat, found.user, scanner.scan.id_map);
    let image = &scanner.scan.image.root.metadata;
    root.metadata = combined(seen, image, image, &changes);
    Ok(Scanned { tree: Tree { root, leaves: scanner.leaves }, taken: scanner.taken })
}

fn normal(path: &str) -> Vec<u8> {
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    parts.collect::<Vec<_>>().join("/").into_bytes()
}

struct Scanner<'a> {
    scan: Scan<'a>,
    leaves: Vec<Leaf>,
    /// Leaves of files that have several names in the layer, by inode number.
    links: HashMap<u64, LeafId>,
    taken: Taken,
    taken_dir: File,
    exclude: HashSet<Vec<u8>>,
}

/// What happened to the direct entries of a directory.
#[derive(Default)]
struct Changes {
    /// One was added, replaced, changed or removed.
    kept: bool,
    /// One is left out of the snapshot.
    excluded: bool,
}

/// An entry of the directory being scanned.
struct Found<'a> {
    parent: BorrowedFd<'a>,
    name: &'a [u8],
    stat: Stat,
    attributes: Attributes,
}

impl Scanner<'_> {
    /// Applies what lies in `fd` to `out`. `lower` is the path in the merged lower layers whose
    /// entries show through, if any do.
    fn directory(
        &mut self,
        fd: BorrowedFd<'_>,
        path: &mut Vec<u8>,
        lower: Option<&[u8]>,
        out: &mut Directory,
    ) -> Result<Changes, FsError> {
        if path.iter().filter(|byte| **byte == b'/').count() >= MAX_DEPTH {
            return Err(self.refuse(path, "it is nested too deep"));
        }
        let mut changes = Changes::default();
        for name in self.names(fd)? {
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            if self.exclude.contains(path) {
                changes.excluded = true;
            } else {
                self.entry(fd, &name, path, lower, out, &mut changes)?;
            }
            path.truncate(length);
        }
        Ok(changes)
    }

    fn names(&self, fd: BorrowedFd<'_>) -> Result<Vec<Box<[u8]>>, FsError> {
        let failed = |errno: rustix::io::Errno| io_error("list a directory of", self.scan.upper)(errno);
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

    fn entry(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &mut Vec<u8>,
        lower: Option<&[u8]>,
        out: &mut Directory,
        changes: &mut Changes,
    ) -> Result<(), FsError> {
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io_error("look at", &self.shown(path)))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let whiteout = kind == FileType::CharacterDevice && stat.st_rdev == 0;
        // A socket is of no use without the process that listens, but it hid what was there.
        if whiteout || kind == FileType::Socket {
            out.entries.remove(name);
            changes.kept = true;
            return Ok(());
        }
        let found = Found {
            parent,
            name,
            stat,
            attributes: attributes(&entry_path(parent, name), self.scan.id_map)?,
        };
        if kind == FileType::Directory {
            return self.subdirectory(found, path, lower, out, changes);
        }
        let id = self.leaf(found, kind, path, lower)?;
        out.entries.insert(name.into(), Entry::Leaf(id));
        changes.kept = true;
        Ok(())
    }

    fn subdirectory(
        &mut self,
        found: Found<'_>,
        path: &mut Vec<u8>,
        lower: Option<&[u8]>,
        out: &mut Directory,
        changes: &mut Changes,
    ) -> Result<(), FsError> {
        let opaque = match found.attributes.opaque.as_deref() {
            None => false,
            Some(b"y") => true,
            Some(_) => return Err(self.refuse(path, "it is opaque in a way that is not known")),
        };
        let moved = found.attributes.redirect.is_some() && !opaque;
        let merged = self.scan.merged;
        let below = match &found.attributes.redirect {
            _ if opaque => None,
            Some(redirect) => Some(self.redirected(path, lower, redirect)?),
            None => lower.map(|lower| joined(lower, found.name)),
        };
        let shown = below.as_deref().and_then(|below| merged.directory(below));
        if moved && shown.is_none() {
            return Err(self.refuse(path, "it was moved from a directory that is not there"));
        }
        let existing = out.entries.remove(found.name);
        let replaced = existing.is_some();
        let (mut directory, from_image) = match (existing, shown) {
            // All of what was moved was visible at its old place, whichever snapshot it is of.
            (_, Some(shown)) if moved => (shown.clone(), true),
            (Some(Entry::Directory(directory)), Some(_)) => (*directory, true),
            _ => (Directory::new(Metadata::with_mode(0)), false),
        };

        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd: OwnedFd = openat(found.parent, found.name, flags, Mode::empty())
            .map_err(io_error("open", &self.shown(path)))?;
        let below = below.filter(|_| shown.is_some());
        let inner = self.directory(fd.as_fd(), path, below.as_deref(), &mut directory)?;

        let seen = metadata(&found.stat, found.attributes.user, self.scan.id_map);
        directory.metadata = match shown {
            Some(shown) if from_image => {
                let image = directory.metadata;
                combined(seen, &shown.metadata, &image, &inner)
            }
            Some(shown) => {
                // Only other snapshots have it: it enters if there is something of the layer.
                if directory.entries.is_empty() && same_but_time(&seen, &shown.metadata) {
                    return Ok(());
                }
                seen
            }
            None => {
                let nothing_else = directory.entries.is_empty() && !inner.kept;
                if nothing_else && inner.excluded && !replaced {
                    changes.excluded = true;
                    return Ok(());
                }
                seen
            }
        };
        // A directory that is only changed inside leaves its parent as it was.
        changes.kept |= moved || shown.is_none() || !replaced;
        let entry = Entry::Directory(Box::new(directory));
        out.entries.insert(found.name.into(), entry);
        Ok(())
    }

    fn leaf(
        &mut self,
        found: Found<'_>,
        kind: FileType,
        path: &[u8],
        lower: Option<&[u8]>,
    ) -> Result<LeafId, FsError> {
        let several_names = found.stat.st_nlink > 1;
        if let (true, Some(id)) = (several_names, self.links.get(&found.stat.st_ino)) {
            return Ok(*id);
        }
        let id = LeafId(self.leaves.len() as u32);
        let kind = match kind {
            FileType::RegularFile if found.attributes.metacopy => {
                LeafKind::File(self.content_below(&found, path, lower)?)
            }
            FileType::RegularFile => LeafKind::File(self.new_content(&found, path, id)?),
            FileType::Symlink => {
                let target = readlinkat(found.parent, found.name, Vec::new())
                    .map_err(io_error("read the link", &self.shown(path)))?;
                LeafKind::Symlink(target.into_bytes().into())
            }
            FileType::Fifo => LeafKind::Fifo,
            FileType::CharacterDevice => LeafKind::CharDevice(found.stat.st_rdev),
            FileType::BlockDevice => LeafKind::BlockDevice(found.stat.st_rdev),
            _ => return Err(self.refuse(path, "it is of an unknown type")),
        };
        let metadata = metadata(&found.stat, found.attributes.user, self.scan.id_map);
        self.leaves.push(Leaf { metadata, kind });
        if several_names {
            self.links.insert(found.stat.st_ino, id);
        }
        Ok(id)
    }

    /// The content of a file of which only the metadata is in the layer.
    fn content_below(
        &self,
        found: &Found<'_>,
        path: &[u8],
        lower: Option<&[u8]>,
    ) -> Result<FileContent, FsError> {
        let below = match (&found.attributes.redirect, lower) {
            (Some(redirect), _) => self.redirected(path, lower, redirect)?,
            (None, Some(lower)) => joined(lower, found.name),
            (None, None) => return Err(self.refuse(path, "its content is nowhere")),
        };
        match self.scan.merged.get(&below) {
            Some(EntryRef::Leaf(_, leaf)) => match &leaf.kind {
                LeafKind::File(content) => Ok(content.clone()),
                _ => Err(self.refuse(path, "its content would be that of a special file")),
            },
            _ => Err(self.refuse(path, "the file with its content is not there")),
        }
    }

    /// The content of a file that is wholly in the layer; moves it aside unless it is small.
    fn new_content(&mut self, found: &Found<'_>, path: &[u8], id: LeafId) -> Result<FileContent, FsError> {
        let size = found.stat.st_size as u64;
        if size > INLINE_LIMIT as u64 {
            let number = self.taken.len().to_string();
            renameat(found.parent, found.name, &self.taken_dir, number)
                .map_err(io_error("move", &self.shown(path)))?;
            self.taken.push(id);
            // Its place is held by what no file can have, until the file is hashed.
            let digest = Digest::from_bytes([0; 32]);
            return Ok(FileContent::Object { digest, size });
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(found.parent, found.name, flags, Mode::empty())
            .map_err(io_error("open", &self.shown(path)))?;
        let mut bytes = Vec::with_capacity(size as usize);
        File::from(fd)
            .take(INLINE_LIMIT as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(io_error("read", &self.shown(path)))?;
        if bytes.len() as u64 != size {
            return Err(self.refuse(path, "it changes while it is read"));
        }
        Ok(FileContent::Inline(bytes.into()))
    }

    /// The path in the lower layers that a redirect names: absolute, or a name beside the
    /// lower counterpart of the parent.
    fn redirected(&self, path: &[u8], lower: Option<&[u8]>, redirect: &[u8]) -> Result<Vec<u8>, FsError> {
        match (redirect.strip_prefix(b"/"), lower) {
            (Some(absolute), _) => Ok(absolute.to_vec()),
            (None, Some(lower)) if !redirect.contains(&b'/') => Ok(joined(lower, redirect)),
            _ => Err(self.refuse(path, "it was moved from a place that cannot be told")),
        }
    }

    fn shown(&self, path: &[u8]) -> PathBuf {
        self.scan.upper.join(OsString::from_vec(path.to_vec()))
    }

    fn refuse(&self, path: &[u8], reason: &str) -> FsError {
        FsError::LayerEntry {
            layer: self.scan.layer.to_owned(),
            path: String::from_utf8_lossy(path).into_owned(),
            reason: reason.to_owned(),
        }
    }
}

/// A path for calls that take no directory descriptor; short, however deep the directory is.
fn entry_path(parent: BorrowedFd<'_>, name: &[u8]) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd()));
    path.push(OsString::from_vec(name.to_vec()));
    path
}

fn joined(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

fn same_but_time(one: &Metadata, other: &Metadata) -> bool {
    let fields = |it: &Metadata| (it.mode, it.uid, it.gid);
    fields(one) == fields(other) && one.xattrs == other.xattrs
}

/// A directory's metadata: what the layer changed of what was shown, and the image's own where
/// it changed nothing (another snapshot may have hidden that).
fn combined(seen: Metadata, shown: &Metadata, image: &Metadata, changes: &Changes) -> Metadata {
    fn pick<T: PartialEq + Clone>(seen: T, shown: &T, image: &T) -> T {
        if seen == *shown { image.clone() } else { seen }
    }
    let only_excluded = changes.excluded && !changes.kept;
    Metadata {
        mode: pick(seen.mode, &shown.mode, &image.mode),
        uid: pick(seen.uid, &shown.uid, &image.uid),
        gid: pick(seen.gid, &shown.gid, &image.gid),
        mtime: if only_excluded { image.mtime } else { pick(seen.mtime, &shown.mtime, &image.mtime) },
        xattrs: pick(seen.xattrs, &shown.xattrs, &image.xattrs),
    }
}
