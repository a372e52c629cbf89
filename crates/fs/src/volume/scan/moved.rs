//! What shows in a directory that is not at the place where the layers below have it, and links out of it.

use std::collections::HashMap;

use homeport_content::{Change, ChangedDirectory, Delta, LeafId, Seen};

use super::walk::{Changes, Walker, joined, push};

impl Walker<'_> {
    /// Says of a directory that does not show what is at its own path below what it shows instead: the entries that are
    /// at `from`, and not those at its own path. `names` are in the upper directory.
    pub(super) fn complete(
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

    pub(super) fn changes(mut self, mut root: ChangedDirectory) -> Changes {
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
