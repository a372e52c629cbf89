//! Changes to a version by path, collected into a delta: what uploads, copies and removals do.

mod error;
mod place;

pub use error::EditError;

use std::collections::{HashMap, HashSet};

use crate::layered::{Links, Node, View};
use crate::replace::{Renumbered, drop_unchanged};
use crate::tree::{components, split_last};
use crate::{Change, Delta, EntryRef, Layered, Leaf, LeafId, Metadata, Seen, Timestamp, Tree};

/// A version that is being changed. Each operation sees what the ones before it did; one that fails changes nothing.
///
/// Paths are absolute or relative to the root, which is the same; symbolic links in them are not followed.
#[derive(Debug)]
pub struct Edit<'a> {
    below: &'a Layered,
    links: Links<'a>,
    delta: Delta,
    now: Timestamp,
}

/// An entry that is to be put elsewhere: its path there, and its metadata as a directory or its leaf.
type Gathered = (Vec<u8>, Result<Metadata, Key>);

/// A leaf: its layer and its number there.
type Key = (usize, LeafId);

impl<'a> Edit<'a> {
    /// Begins. Directories in which names come or go get the time `now`, as do directories that are made.
    pub fn new(below: &'a Layered, now: Timestamp) -> Edit<'a> {
        let delta = Delta::new(below.root().metadata().clone());
        Edit { below, links: Links::new(below), delta, now }
    }

    /// The changes, against the version that the edit began with.
    pub fn finish(mut self) -> Delta {
        drop_unchanged(&mut self.delta.root, Some(&self.below.root()));
        self.delta.renumber();
        self.delta
    }

    /// What is at `path` now.
    pub fn get(&self, path: &[u8]) -> Option<Seen<'_>> {
        self.seen(&self.node(path)?)
    }

    /// The entries of the directory at `path` as they are now; `None` if there is no such directory.
    pub fn list(&self, path: &[u8]) -> Option<Vec<(Box<[u8]>, Seen<'_>)>> {
        let Node::Directory(view) = self.node(path)? else { return None };
        Some(view.entries().filter_map(|(name, node)| Some((name.clone(), self.seen(&node)?))).collect())
    }

    /// Puts a new leaf at `path`, in place of a leaf that is there. Missing parents are made with mode 0755.
    pub fn put_leaf(&mut self, path: &[u8], leaf: Leaf) -> Result<(), EditError> {
        let place = self.for_leaf(path)?;
        let id = self.delta.push_leaf(leaf);
        self.put_name(&place, id);
        Ok(())
    }

    /// Makes the directory at `path`, and its missing parents, with mode 0755. One that is there stays as it is.
    pub fn make_directory(&mut self, path: &[u8]) -> Result<(), EditError> {
        self.for_directory(path)?;
        self.directory(&components(path).collect::<Vec<_>>());
        Ok(())
    }

    /// Gives the directory at `path`, which is made if it is missing, this metadata.
    pub fn set_directory(&mut self, path: &[u8], metadata: Metadata) -> Result<(), EditError> {
        self.for_directory(path)?;
        self.directory(&components(path).collect::<Vec<_>>()).metadata = metadata;
        Ok(())
    }

    /// Puts all that is in `tree` at `path`, as one layer over another. Hard links within it stay. A directory that is
    /// at `path` keeps its metadata, those below it get what `tree` says.
    pub fn put_tree(&mut self, path: &[u8], tree: &Tree) -> Result<(), EditError> {
        let below = |path_in_tree: &[u8]| [path, b"/", path_in_tree].concat();
        for (found, entry) in tree.walk() {
            match entry {
                EntryRef::Directory(_) => self.for_directory(&below(&found))?,
                EntryRef::Leaf(..) => drop(self.for_leaf(&below(&found))?),
            }
        }
        match self.node(path) {
            Some(Node::Directory(_)) => {}
            _ => self.set_directory(path, tree.root.metadata.clone())?,
        }
        let mut numbers = Renumbered::new();
        for (found, entry) in tree.walk() {
            let found = below(&found);
            if let EntryRef::Leaf(id, leaf) = entry {
                let id = numbers.copy(id, leaf, &mut self.delta.leaves);
                self.put_name(&split_last(&found)?, id);
            }
        }
        for (found, entry) in tree.walk() {
            if let EntryRef::Directory(directory) = entry {
                self.set_directory(&below(&found), directory.metadata.clone())?;
            }
        }
        Ok(())
    }

    /// Removes the leaf at `path`, or with `recursive` also a directory and all that is below it.
    pub fn remove(&mut self, path: &[u8], recursive: bool) -> Result<(), EditError> {
        let (parents, name) = split_last(path)?;
        match self.node(path) {
            None => return Err(EditError::not_found(path)),
            Some(Node::Directory(_)) if !recursive => return Err(EditError::is_a_directory(path)),
            Some(_) => {}
        }
        let was_below = self.below.node(path).is_some();
        let parent = self.parent(&parents);
        match was_below {
            true => parent.entries.insert(name.into(), Change::Removed),
            false => parent.entries.remove(name),
        };
        Ok(())
    }

    /// Copies what is at `from` to exactly `to`. A leaf replaces a leaf; a directory (with `recursive`) is merged into
    /// a directory. What is copied gets the time of the edit and is linked to nothing. Contents are not copied.
    pub fn copy(&mut self, from: &[u8], to: &[u8], recursive: bool) -> Result<(), EditError> {
        let node = self.node(from).ok_or_else(|| EditError::not_found(from))?;
        if matches!(node, Node::Directory(_)) && !recursive {
            return Err(EditError::is_a_directory(from));
        }
        let found = self.gather(&node, from, to)?;
        for (path, what) in found {
            match what {
                Ok(metadata) => self.set_directory(&path, Metadata { mtime: self.now, ..metadata })?,
                Err(key) => {
                    let mut leaf = self.leaf(key).ok_or_else(|| EditError::not_found(from))?.clone();
                    leaf.metadata.mtime = self.now;
                    let id = self.delta.push_leaf(leaf);
                    self.put_name(&split_last(&path)?, id);
                }
            }
        }
        Ok(())
    }

    /// Gives what is at `from` the path `to`, as `rename(2)` does: a leaf replaces a leaf, a directory an empty
    /// directory. Hard links stay.
    pub fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<(), EditError> {
        split_last(from)?;
        let node = self.node(from).ok_or_else(|| EditError::not_found(from))?;
        let same_file = match (&node, self.node(to)) {
            (Node::Leaf(from), Some(Node::Leaf(to))) => *from == to,
            _ => false,
        };
        if same_file || components(from).eq(components(to)) {
            return Ok(());
        }
        if let (Node::Directory(_), Some(Node::Directory(there))) = (&node, self.node(to))
            && there.entries().next().is_some()
        {
            return Err(EditError::not_empty(to));
        }
        let found = self.gather(&node, from, to)?;
        let moved: HashSet<Key> = found.iter().filter_map(|(_, what)| what.as_ref().err().copied()).collect();
        let others = self.names_elsewhere(&moved, from);
        let mut ids = HashMap::new();
        for key in moved {
            let own = key.0 == self.top();
            let leaf = if own { None } else { self.leaf(key).cloned() };
            ids.insert(key, leaf.map_or(key.1, |leaf| self.delta.push_leaf(leaf)));
        }
        self.remove(from, true)?;
        let (parents, _) = split_last(to)?;
        self.parent(&parents);
        for (path, what) in &found {
            match what {
                Ok(_) => drop(self.directory(&components(path).collect::<Vec<_>>())),
                Err(key) => self.put_name(&split_last(path)?, ids[key]),
            }
        }
        for (path, what) in found {
            if let Ok(metadata) = what {
                self.set_directory(&path, metadata)?;
            }
        }
        // A delta has all names of a file or none.
        for (path, key) in others {
            let (parents, name) = split_last(&path)?;
            self.directory(&parents).entries.insert(name.into(), Change::Leaf(ids[&key]));
        }
        Ok(())
    }

    /// What is to be put at `to` and below it, each directory before what is in it, when `node` at `from` goes there.
    fn gather(&self, node: &Node<'_>, from: &[u8], to: &[u8]) -> Result<Vec<Gathered>, EditError> {
        let mut found = Vec::new();
        match node {
            Node::Leaf(key) => found.push((to.to_vec(), Err(*key))),
            Node::Directory(_) if is_within(to, from) => return Err(EditError::into_itself(from, to)),
            Node::Directory(view) => gather_directory(view, to, &mut found),
        }
        // All of it or nothing: what is in the way is found before anything changes.
        for (path, what) in &found {
            match what {
                Ok(_) => self.for_directory(path)?,
                Err(_) => drop(self.for_leaf(path)?),
            }
        }
        Ok(found)
    }

    /// The names outside of `from` of leaves below that are moved from there.
    fn names_elsewhere(&self, moved: &HashSet<Key>, from: &[u8]) -> Vec<(Vec<u8>, Key)> {
        let linked = moved.iter().copied().filter(|key| self.links.has_several(*key)).collect();
        let mut names = self.below.names_of_each(&linked);
        names.retain(|(path, key)| {
            !is_within(path, from) && matches!(self.node(path), Some(Node::Leaf(found)) if found == *key)
        });
        names
    }
}

fn gather_directory(view: &View<'_>, to: &[u8], found: &mut Vec<Gathered>) {
    found.push((to.to_vec(), Ok(view.metadata().clone())));
    for (name, node) in view.entries() {
        let to = [to, name].join(&b'/');
        match node {
            Node::Directory(view) => gather_directory(&view, &to, found),
            Node::Leaf(key) => found.push((to, Err(key))),
        }
    }
}

/// Whether a path is that of the directory or of something in it.
fn is_within(path: &[u8], directory: &[u8]) -> bool {
    let mut path = components(path);
    components(directory).all(|name| path.next() == Some(name))
}
