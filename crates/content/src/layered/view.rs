//! One directory through all layers.

use std::collections::btree_map;
use std::iter::Peekable;

use crate::tree::components;
use crate::{Change, ChangedDirectory, Directory, Entry, LeafId, Metadata};

/// A directory as it shows: those layers that have a part in it.
#[derive(Debug, Clone)]
pub(crate) struct View<'a> {
    tree: Option<&'a Directory>,
    /// With the numbers of their layers, the oldest first. Not empty if `tree` is `None`.
    deltas: Vec<(usize, &'a ChangedDirectory)>,
}

/// What shows under a name.
#[derive(Debug, Clone)]
pub(crate) enum Node<'a> {
    Directory(View<'a>),
    /// Layer and number.
    Leaf((usize, LeafId)),
}

/// What one layer has under a name.
enum Part<'a> {
    Tree(&'a Entry),
    Delta(usize, &'a Change),
}

impl<'a> View<'a> {
    /// `None` if there is no part at all.
    pub(crate) fn new(tree: Option<&'a Directory>, deltas: Vec<(usize, &'a ChangedDirectory)>) -> View<'a> {
        View { tree, deltas }
    }

    /// The parts of the layers, the lowest first.
    pub(crate) fn parts(&self) -> (Option<&'a Directory>, &[(usize, &'a ChangedDirectory)]) {
        (self.tree, &self.deltas)
    }

    pub(crate) fn metadata(&self) -> &'a Metadata {
        static NONE: Metadata = Metadata::NONE;
        let newest = self.deltas.last().map(|(_, directory)| &directory.metadata);
        newest.or(self.tree.map(|directory| &directory.metadata)).unwrap_or(&NONE)
    }

    pub(crate) fn child(&self, name: &[u8]) -> Option<Node<'a>> {
        let deltas = self.deltas.iter().rev();
        let deltas = deltas.filter_map(|(layer, part)| Some(Part::Delta(*layer, part.entries.get(name)?)));
        let tree = || self.tree.and_then(|part| part.entries.get(name)).map(Part::Tree);
        through(deltas.chain(std::iter::once_with(tree).flatten()))
    }

    /// What is at a path below this directory. The empty path is the directory itself.
    pub(crate) fn at(&self, path: &[u8]) -> Option<Node<'a>> {
        let mut view = self.clone();
        let mut parts = components(path).peekable();
        while let Some(part) = parts.next() {
            match view.child(part)? {
                Node::Directory(next) => view = next,
                leaf @ Node::Leaf(_) => return parts.peek().is_none().then_some(leaf),
            }
        }
        Some(Node::Directory(view))
    }

    /// This directory with what one more layer has in it.
    pub(crate) fn under(mut self, layer: usize, directory: &'a ChangedDirectory) -> View<'a> {
        self.deltas.push((layer, directory));
        self
    }

    pub(crate) fn entries(&self) -> Entries<'a> {
        Entries {
            tree: self.tree.map(|part| part.entries.iter().peekable()),
            deltas: self
                .deltas
                .iter()
                .map(|(layer, part)| (*layer, part.entries.iter().peekable()))
                .collect(),
        }
    }
}

/// What shows through layers, the newest of which comes first.
fn through<'a>(parts: impl Iterator<Item = Part<'a>>) -> Option<Node<'a>> {
    let mut view = View { tree: None, deltas: Vec::new() };
    for part in parts {
        let leaf = match part {
            Part::Delta(layer, Change::Directory(directory)) => {
                view.deltas.push((layer, directory));
                continue;
            }
            Part::Tree(Entry::Directory(directory)) => {
                view.tree = Some(directory);
                break;
            }
            Part::Delta(_, Change::Removed) => None,
            Part::Delta(layer, Change::Leaf(id)) => Some((layer, *id)),
            Part::Tree(Entry::Leaf(id)) => Some((0, *id)),
        };
        if view.deltas.is_empty() {
            return leaf.map(Node::Leaf);
        }
        // A directory hides what is no directory, and all that is below that.
        break;
    }
    if view.tree.is_none() && view.deltas.is_empty() {
        return None;
    }
    view.deltas.reverse();
    Some(Node::Directory(view))
}

/// The entries of a directory through all layers, in byte order of their names.
#[derive(Debug)]
pub(crate) struct Entries<'a> {
    tree: Option<Names<'a, Entry>>,
    deltas: Vec<(usize, Names<'a, Change>)>,
}

/// What one layer has in a directory, by name.
type Names<'a, T> = Peekable<btree_map::Iter<'a, Box<[u8]>, T>>;

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a Box<[u8]>, Node<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let in_tree = self.tree.as_mut().and_then(|part| part.peek().map(|(name, _)| *name));
            let in_deltas = self.deltas.iter_mut().filter_map(|(_, part)| part.peek().map(|(name, _)| *name));
            let first = in_deltas.chain(in_tree).min()?;
            let deltas = self.deltas.iter_mut().rev().filter_map(|(layer, part)| {
                let (_, change) = part.next_if(|(name, _)| *name == first)?;
                Some(Part::Delta(*layer, change))
            });
            // All parts step past the name, whatever the newest of them says.
            let mut found: Vec<Part<'a>> = deltas.collect();
            let in_tree = self.tree.as_mut().and_then(|part| part.next_if(|(name, _)| *name == first));
            found.extend(in_tree.map(|(_, entry)| Part::Tree(entry)));
            if let Some(node) = through(found.into_iter()) {
                return Some((first, node));
            }
        }
    }
}
