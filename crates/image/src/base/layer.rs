//! Applies the layers of an image, tar streams, to a [`Tree`]. File contents go to the store as they
//! come; nothing is unpacked on disk.
//!
//! A whiteout hides what lower layers have and nothing of its own layer, wherever it stands in the
//! stream. Symbolic links in the directory part of a path are followed, as they would be if the layer
//! were unpacked into the mounted image; a path with `..` is refused.

use std::collections::HashSet;
use std::io::{self, Read};

use homeport_content::{Directory, Entry, EntryRef, Leaf, LeafKind, Metadata, PathError, Tree};
use homeport_store::{Batch, StoreError};
use thiserror::Error;

use super::tar_stream::{self, Kind, TarError, TarStream};

/// Bounds on what an image may unpack to, so that a small download can't fill the disk.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all files of an image.
    pub bytes: u64,
    /// Entries of all its layers.
    pub entries: u64,
}

impl Default for Limits {
    /// 512 GiB in 20 million entries.
    fn default() -> Self {
        Self { bytes: 512 << 30, entries: 20_000_000 }
    }
}

/// Why a layer can't be applied.
#[derive(Debug, Error)]
pub enum LayerError {
    /// The stream can't be read.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// The store can't take a file.
    #[error("storing `{path}` failed: {source}")]
    Store {
        /// Path in the image.
        path: String,
        /// Why.
        source: StoreError,
    },
    /// A path that points out of the image.
    #[error("the entry `{0}` points outside the image")]
    Traversal(String),
    /// A path that can't be an entry.
    #[error("the entry `{path}` can't be placed: {reason}")]
    Unplaceable {
        /// Path in the layer.
        path: String,
        /// Why.
        reason: String,
    },
    /// A hard link to something that isn't there or is no file.
    #[error("the entry `{path}` is a hard link to `{target}`, which is not a file of the image")]
    DanglingHardLink {
        /// Path in the layer.
        path: String,
        /// What it links to.
        target: String,
    },
    /// The image is larger than allowed.
    #[error("the image unpacks to more than {0}")]
    TooLarge(String),
}

/// Applies layers from the lowest to the uppermost.
pub struct Layering<'a, 'store> {
    tree: Tree,
    batch: &'a Batch<'store>,
    left: Limits,
    limits: Limits,
    skip: fn(&[u8]) -> bool,
}

impl<'a, 'store> Layering<'a, 'store> {
    /// An image without a layer. Its files are staged in `batch`.
    pub fn new(batch: &'a Batch<'store>, limits: Limits) -> Self {
        Self { tree: Tree::default(), batch, left: limits, limits, skip: |_| false }
    }

    /// Leaves out entries whose path (without a leading slash) `skip` holds for.
    pub fn skipping(mut self, skip: fn(&[u8]) -> bool) -> Self {
        self.skip = skip;
        self
    }

    /// The image. It is whole only if no layer failed.
    pub fn finish(self) -> Tree {
        self.tree
    }

    /// Applies one layer, an uncompressed tar stream; reads it up to its end mark.
    pub fn apply(&mut self, layer: impl Read) -> Result<(), LayerError> {
        let mut stream = TarStream::new(layer);
        let mut own = Own::default();
        while let Some(entry) = stream.next_entry()? {
            self.left.entries = self
                .left
                .entries
                .checked_sub(1)
                .ok_or_else(|| LayerError::TooLarge(format!("{} entries", self.limits.entries)))?;
            self.left.bytes = self
                .left
                .bytes
                .checked_sub(entry.size)
                .ok_or_else(|| LayerError::TooLarge(format!("{} bytes", self.limits.bytes)))?;
            self.entry(entry, &mut stream, &mut own)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        entry: tar_stream::Entry,
        content: &mut impl Read,
        own: &mut Own,
    ) -> Result<(), LayerError> {
        let path = cleaned(&entry.path)?;
        if (self.skip)(&path) {
            return Ok(());
        }
        let Some(slash) = path
            .iter()
            .rposition(|byte| *byte == b'/')
            .map_or((!path.is_empty()).then_some(0), |at| Some(at + 1))
        else {
            // The root itself.
            if entry.kind == Kind::Directory {
                self.tree.root.metadata = metadata(&entry);
            }
            return Ok(());
        };
        let (parent, name) = (&path[..slash.saturating_sub(1)], &path[slash..]);
        let parent = self
            .tree
            .resolve(parent)
            .ok_or_else(|| unplaceable(&path, "a part of it is a file or a circle of symbolic links"))?;
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            return self.whiteout(&path, &parent, hidden, own);
        }
        let place = below(&parent, name);
        match entry.kind {
            Kind::Directory => self.directory(&entry, &place)?,
            Kind::HardLink => self.hard_link(&entry, &place)?,
            _ => {
                let leaf = Leaf { metadata: metadata(&entry), kind: self.leaf_kind(&entry, content)? };
                self.tree
                    .insert_leaf(&place, leaf)
                    .map_err(|error| unplaceable(&path, &error.to_string()))?;
            }
        }
        own.add(place);
        Ok(())
    }

    fn leaf_kind(&self, entry: &tar_stream::Entry, content: &mut impl Read) -> Result<LeafKind, LayerError> {
        Ok(match entry.kind {
            Kind::Symlink => LeafKind::Symlink(entry.link.clone().into()),
            Kind::Fifo => LeafKind::Fifo,
            Kind::CharDevice => LeafKind::CharDevice(device_number(entry.device)),
            Kind::BlockDevice => LeafKind::BlockDevice(device_number(entry.device)),
            Kind::File | Kind::Directory | Kind::HardLink => {
                let stored = self.batch.file_content(content);
                LeafKind::File(stored.map_err(|source| store_error(&entry.path, source))?)
            }
        })
    }

    fn directory(&mut self, entry: &tar_stream::Entry, place: &[u8]) -> Result<(), LayerError> {
        let placed = |error: PathError| unplaceable(&entry.path, &error.to_string());
        if let Some(EntryRef::Leaf(..)) = self.tree.get(place) {
            self.tree.remove(place).map_err(placed)?;
        }
        self.tree.directory_mut(place, true).map_err(placed)?.metadata = metadata(entry);
        Ok(())
    }

    fn hard_link(&mut self, entry: &tar_stream::Entry, place: &[u8]) -> Result<(), LayerError> {
        let target = cleaned(&entry.link)?;
        // The link's own name is taken as it is; only the way to it may lead over links.
        let (parent, name) = match target.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&target[..at], &target[at + 1..]),
            None => (&target[..0], &target[..]),
        };
        let found = self.tree.resolve(parent).map(|parent| below(&parent, name));
        match found.and_then(|found| self.tree.get(&found)) {
            Some(EntryRef::Leaf(id, _)) => {
                self.tree.insert_link(place, id).map_err(|error| unplaceable(&entry.path, &error.to_string()))
            }
            _ => Err(LayerError::DanglingHardLink { path: shown(&entry.path), target: shown(&entry.link) }),
        }
    }

    fn whiteout(&mut self, path: &[u8], parent: &[u8], hidden: &[u8], own: &Own) -> Result<(), LayerError> {
        // Names of the union file systems' own book-keeping.
        const OPAQUE: &[u8] = b".wh..opq";
        let placed = |error: PathError| unplaceable(path, &error.to_string());
        if self.tree.directory(parent).is_none() {
            return Ok(());
        }
        let directory = self.tree.directory_mut(parent, false).map_err(placed)?;
        if hidden == OPAQUE {
            own.keep_only(directory, parent);
            return Ok(());
        }
        if hidden.is_empty() || matches!(hidden, b"." | b"..") {
            return Err(LayerError::Traversal(shown(path)));
        }
        if hidden.starts_with(b".wh.") {
            return Ok(());
        }
        let place = below(parent, hidden);
        if !own.holds(&place) {
            directory.entries.remove(hidden);
            return Ok(());
        }
        if let Some(Entry::Directory(directory)) = directory.entries.get_mut(hidden) {
            own.keep_only(directory, &place);
        }
        Ok(())
    }
}

/// Paths that the present layer has made, with their parents: what its whiteouts don't hide.
#[derive(Default)]
struct Own(HashSet<Vec<u8>>);

impl Own {
    fn add(&mut self, mut path: Vec<u8>) {
        while !path.is_empty() && self.0.insert(path.clone()) {
            let parent = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            path.truncate(parent);
        }
    }

    fn holds(&self, path: &[u8]) -> bool {
        self.0.contains(path)
    }

    /// Removes from `directory`, which is at `path`, all that isn't of this layer.
    fn keep_only(&self, directory: &mut Directory, path: &[u8]) {
        directory.entries.retain(|name, entry| {
            let place = below(path, name);
            if !self.holds(&place) {
                return false;
            }
            if let Entry::Directory(directory) = entry {
                self.keep_only(directory, &place);
            }
            true
        });
    }
}

/// Path without leading, doubled or trailing slashes and without `.`.
fn cleaned(path: &[u8]) -> Result<Vec<u8>, LayerError> {
    let parts: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&b"..".as_slice()) {
        return Err(LayerError::Traversal(shown(path)));
    }
    Ok(parts.join(&b'/'))
}

fn metadata(entry: &tar_stream::Entry) -> Metadata {
    let xattrs = entry
        .xattrs
        .iter()
        .filter(|(name, _)| carries_over(name))
        .map(|(name, value)| (name.clone().into(), value.clone().into()))
        .collect();
    Metadata { mode: entry.mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime, xattrs }
}

/// Attributes that steer overlay file systems would let an image reach other images' files; labels of
/// a security module belong to the machine that built the image.
fn carries_over(name: &[u8]) -> bool {
    !(name.starts_with(b"trusted.") || name.starts_with(b"user.overlay.") || name == b"security.selinux")
}

/// As in `st_rdev`.
fn device_number((major, minor): (u32, u32)) -> u64 {
    let (major, minor) = (u64::from(major), u64::from(minor));
    ((major & 0xffff_f000) << 32) | ((major & 0xfff) << 8) | ((minor & 0xffff_ff00) << 12) | (minor & 0xff)
}

fn below(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn unplaceable(path: &[u8], reason: &str) -> LayerError {
    LayerError::Unplaceable { path: shown(path), reason: reason.to_owned() }
}

/// A failure to read the content is the stream's, not the store's.
fn store_error(path: &[u8], source: StoreError) -> LayerError {
    match source {
        StoreError::Source(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            LayerError::Tar(TarError::Truncated(shown(path)))
        }
        StoreError::Source(error) => LayerError::Tar(TarError::Read(error)),
        source => LayerError::Store { path: shown(path), source },
    }
}

#[cfg(test)]
mod tests;
