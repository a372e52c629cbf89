//! Where things are and where they go: looking first, then writing into the delta.

use super::{Edit, EditError};
use crate::layered::{Node, View};
use crate::replace::{child_directory, fresh};
use crate::tree::{components, name_fault, shown, split_last};
use crate::{Change, ChangedDirectory, Leaf, LeafId, MAX_DEPTH, Metadata, PathError, Seen};

/// The directories of a path, and the name in the last of them.
pub(super) type Place<'p> = (Vec<&'p [u8]>, &'p [u8]);

impl Edit<'_> {
    /// The number of the layer that the edit makes.
    pub(super) fn top(&self) -> usize {
        self.below.deltas.len() + 1
    }

    pub(super) fn root(&self) -> View<'_> {
        self.below.root().under(self.top(), &self.delta.root)
    }

    pub(super) fn node(&self, path: &[u8]) -> Option<Node<'_>> {
        self.root().at(path)
    }

    pub(super) fn leaf(&self, key: (usize, LeafId)) -> Option<&Leaf> {
        if key.0 == self.top() { self.delta.leaf(key.1) } else { self.below.leaf(key) }
    }

    pub(super) fn seen<'s>(&'s self, node: &Node<'s>) -> Option<Seen<'s>> {
        Some(match node {
            Node::Directory(view) => Seen::Directory(view.metadata()),
            Node::Leaf(key) => Seen::Leaf { leaf: self.leaf(*key)?, layer: key.0, id: key.1 },
        })
    }

    /// The place of a path at which something can be: its names are names, and its parents are directories or missing.
    pub(super) fn place<'p>(&self, path: &'p [u8]) -> Result<Place<'p>, EditError> {
        let (parents, name) = split_last(path)?;
        if parents.len() >= MAX_DEPTH {
            return Err(PathError::TooDeep { path: shown(path) }.into());
        }
        if let Some(reason) = parents.iter().chain([&name]).find_map(|name| name_fault(name)) {
            return Err(EditError::invalid_name(path, reason));
        }
        let mut view = self.root();
        for parent in &parents {
            match view.child(parent) {
                Some(Node::Directory(next)) => view = next,
                Some(Node::Leaf(_)) => return Err(EditError::not_a_directory(path, parent)),
                None => break,
            }
        }
        Ok((parents, name))
    }

    /// The place of a path at which a leaf can be put.
    pub(super) fn for_leaf<'p>(&self, path: &'p [u8]) -> Result<Place<'p>, EditError> {
        let place = self.place(path)?;
        match self.node(path) {
            Some(Node::Directory(_)) => Err(EditError::is_a_directory(path)),
            Some(Node::Leaf(_)) | None => Ok(place),
        }
    }

    /// Whether there is, or can be, a directory at a path.
    pub(super) fn for_directory(&self, path: &[u8]) -> Result<(), EditError> {
        if components(path).next().is_none() {
            return Ok(());
        }
        let (_, name) = self.place(path)?;
        match self.node(path) {
            Some(Node::Leaf(_)) => Err(EditError::not_a_directory(path, name)),
            Some(Node::Directory(_)) | None => Ok(()),
        }
    }

    /// The directory with these names, for changing, made with those above it where they are missing. The names were
    /// looked at: no leaf is in the way.
    pub(super) fn directory(&mut self, names: &[&[u8]]) -> &mut ChangedDirectory {
        let now = self.now;
        let mut below = Some(self.below.root());
        let mut directory = &mut self.delta.root;
        for name in names {
            let inner = child_directory(below.as_ref(), name);
            let shows = match directory.entries.get(*name) {
                Some(change) => matches!(change, Change::Directory(_)),
                None => inner.is_some(),
            };
            if !shows {
                directory.metadata.mtime = now;
            }
            directory = directory.directory((*name).into(), || match &inner {
                Some(view) if shows => ChangedDirectory::new(view.metadata().clone()),
                _ => fresh(Metadata { mtime: now, ..Metadata::with_mode(0o755) }, inner.as_ref()),
            });
            below = inner;
        }
        directory
    }

    /// The directory with these names, in which a name comes or goes.
    pub(super) fn parent(&mut self, names: &[&[u8]]) -> &mut ChangedDirectory {
        let now = self.now;
        let directory = self.directory(names);
        directory.metadata.mtime = now;
        directory
    }

    /// Makes a path, at which a leaf can be put, a name of this leaf of the delta.
    pub(super) fn put_name(&mut self, (parents, name): &Place<'_>, id: LeafId) {
        self.parent(parents).entries.insert((*name).into(), Change::Leaf(id));
    }
}
