//! All entries through all layers, one after the other.

use super::{Entries, Layered, Node, Seen};
use crate::tree::components;

/// All entries below a directory, see [`Layered::walk`].
#[derive(Debug)]
pub struct WalkLayered<'a> {
    layered: &'a Layered,
    /// What is still to be visited of a directory; beside it, the length of the directory's path.
    stack: Vec<(usize, Entries<'a>)>,
    path: Vec<u8>,
}

impl<'a> WalkLayered<'a> {
    pub(super) fn new(layered: &'a Layered, path: &[u8]) -> WalkLayered<'a> {
        let path = components(path).collect::<Vec<_>>().join(&b'/');
        let stack = match layered.node(&path) {
            Some(Node::Directory(view)) => vec![(path.len(), view.entries())],
            Some(Node::Leaf(_)) | None => Vec::new(),
        };
        WalkLayered { layered, stack, path }
    }
}

impl<'a> Iterator for WalkLayered<'a> {
    type Item = (Vec<u8>, Seen<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (prefix, entries) = self.stack.last_mut()?;
            self.path.truncate(*prefix);
            let Some((name, node)) = entries.next() else {
                self.stack.pop();
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name);
            // An entry without its leaf is refused when a layer is stored; it has nothing to show.
            let Some(seen) = self.layered.seen(&node) else { continue };
            if let Node::Directory(view) = node {
                self.stack.push((self.path.len(), view.entries()));
            }
            return Some((self.path.clone(), seen));
        }
    }
}
