//! Reading of everything that is no directory.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd;

use homeport_content::{Digest, FileContent, INLINE_LIMIT, Leaf, LeafId, LeafKind, Seen};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};

use super::contents::NewFile;
use super::known::Stamp;
use super::leases;
use super::links::Origin;
use super::survey::object_of;
use super::walk::{Entry, Read, Walker, entry_path};
use crate::commit::upper::{attributes, metadata};
use crate::error::{FsError, io_error};

impl Walker<'_> {
    /// A file that was read before and is as it was then.
    pub(super) fn known_leaf(&mut self, stat: &Stat) -> Option<LeafId> {
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

    pub(super) fn leaf(
        &mut self,
        entry: &Entry<'_>,
        kind: FileType,
        path: &[u8],
    ) -> Result<Option<LeafId>, FsError> {
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
    pub(super) fn indexed_only(&mut self) -> Result<(), FsError> {
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
}
