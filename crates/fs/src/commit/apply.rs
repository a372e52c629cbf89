//! A delta over an image and other snapshots, applied to the image alone.

use homeport_content::{
    Change, ChangedDirectory, Delta, Directory, Entry, Layered, LeafId, Metadata, Seen, Tree,
};

/// The image, which is the base of `seen`, with the changes. Of what only the other snapshots show, what was changed
/// enters it.
pub(super) fn apply(delta: &Delta, seen: &Layered) -> Tree {
    let mut tree = Tree::clone(&seen.base);
    let first = tree.leaves.len() as u32;
    tree.leaves.extend(delta.leaves.iter().cloned());
    // The root was given the image's metadata when the layer was first mounted.
    let shown = tree.root.metadata.clone();
    let mut applying = Applying { seen, first, path: Vec::new() };
    applying.directory(&delta.root, &mut tree.root, Some(&shown));
    tree
}

struct Applying<'a> {
    seen: &'a Layered,
    /// The number in the tree that leaf 0 of the delta has.
    first: u32,
    path: Vec<u8>,
}

impl Applying<'_> {
    /// Applies changes to a directory of the image, of which `shown` was seen.
    fn directory(&mut self, changed: &ChangedDirectory, out: &mut Directory, shown: Option<&Metadata>) {
        out.metadata = match shown {
            Some(shown) => combined(&changed.metadata, shown, &out.metadata),
            None => changed.metadata.clone(),
        };
        for (name, change) in &changed.entries {
            let length = self.path.len();
            self.path.push(b'/');
            self.path.extend_from_slice(name);
            match change {
                Change::Removed => drop(out.entries.remove(name)),
                Change::Leaf(id) => {
                    out.entries.insert(name.clone(), Entry::Leaf(LeafId(self.first + id.0)));
                }
                Change::Directory(changed) => self.subdirectory(name, changed, out),
            }
            self.path.truncate(length);
        }
    }

    fn subdirectory(&mut self, name: &[u8], changed: &ChangedDirectory, out: &mut Directory) {
        let shown = match self.seen.get(&self.path) {
            Some(Seen::Directory(metadata)) => Some(metadata),
            _ => None,
        };
        match (out.entries.get_mut(name), shown) {
            (Some(Entry::Directory(existing)), Some(_)) => self.directory(changed, existing, shown),
            _ => {
                let mut new = Directory::new(changed.metadata.clone());
                self.directory(changed, &mut new, None);
                // Only other snapshots have it: it enters if there is something of the layer.
                let only_time =
                    |shown: &Metadata| *shown == Metadata { mtime: shown.mtime, ..new.metadata.clone() };
                if !(new.entries.is_empty() && shown.is_some_and(only_time)) {
                    out.entries.insert(name.into(), Entry::Directory(Box::new(new)));
                }
            }
        }
    }
}

/// A directory's metadata: what the layer changed of what was shown, and the image's own where it changed nothing (another
/// snapshot may have hidden that).
fn combined(seen: &Metadata, shown: &Metadata, image: &Metadata) -> Metadata {
    fn pick<T: PartialEq + Clone>(seen: &T, shown: &T, image: &T) -> T {
        if seen == shown { image.clone() } else { seen.clone() }
    }
    Metadata {
        mode: pick(&seen.mode, &shown.mode, &image.mode),
        uid: pick(&seen.uid, &shown.uid, &image.uid),
        gid: pick(&seen.gid, &shown.gid, &image.gid),
        mtime: pick(&seen.mtime, &shown.mtime, &image.mtime),
        xattrs: pick(&seen.xattrs, &shown.xattrs, &image.xattrs),
    }
}
