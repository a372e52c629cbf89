//! All changes of a delta, one after the other.

use std::collections::btree_map;

use super::{Change, Delta};

/// What is still to be visited of a directory; beside it, the length of the directory's path.
type Entries<'a> = btree_map::Iter<'a, Box<[u8]>, Change>;

/// All names in a delta, see [`Delta::walk`].
#[derive(Debug)]
pub struct WalkDelta<'a> {
    stack: Vec<(usize, Entries<'a>)>,
    path: Vec<u8>,
}

impl Delta {
    /// All names in the delta, each directory before what is in it, in byte order of names. Paths are relative to the
    /// root, without a leading slash.
    pub fn walk(&self) -> WalkDelta<'_> {
        WalkDelta { stack: vec![(0, self.root.entries.iter())], path: Vec::new() }
    }
}

impl<'a> Iterator for WalkDelta<'a> {
    type Item = (Vec<u8>, &'a Change);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (prefix, entries) = self.stack.last_mut()?;
            self.path.truncate(*prefix);
            let Some((name, change)) = entries.next() else {
                self.stack.pop();
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name);
            if let Change::Directory(directory) = change {
                self.stack.push((self.path.len(), directory.entries.iter()));
            }
            return Some((self.path.clone(), change));
        }
    }
}
