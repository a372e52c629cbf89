//! All entries of a tree, one after the other.

use std::collections::btree_map;

use super::{Directory, Entry, EntryRef, Tree};

/// What is still to be visited of a directory; beside it, the length of the directory's path.
type Entries<'a> = btree_map::Iter<'a, Box<[u8]>, Entry>;

/// All entries below the root, see [`Tree::walk`].
#[derive(Debug)]
pub struct Walk<'a> {
    tree: &'a Tree,
    stack: Vec<(usize, Entries<'a>)>,
    path: Vec<u8>,
}

impl Tree {
    /// All entries below the root, each directory before what is in it, in byte order of names.
    /// Paths are relative to the root, without a leading slash.
    pub fn walk(&self) -> Walk<'_> {
        Walk { tree: self, stack: vec![(0, self.root.entries.iter())], path: Vec::new() }
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = (Vec<u8>, EntryRef<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (prefix, entries) = self.stack.last_mut()?;
            self.path.truncate(*prefix);
            let Some((name, entry)) = entries.next() else {
                self.stack.pop();
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name);
            match entry {
                Entry::Directory(directory) => {
                    let directory: &'a Directory = directory;
                    self.stack.push((self.path.len(), directory.entries.iter()));
                    return Some((self.path.clone(), EntryRef::Directory(directory)));
                }
                // An entry without its leaf is refused by `validate`; it has nothing to show.
                Entry::Leaf(id) => match self.tree.leaf(*id) {
                    Some(leaf) => return Some((self.path.clone(), EntryRef::Leaf(*id, leaf))),
                    None => continue,
                },
            }
        }
    }
}
