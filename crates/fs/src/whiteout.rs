//! Deltas as trees in the kernel's terms: a name that is gone is a character device 0:0.

use homeport_content::{Change, ChangedDirectory, Delta, Directory, Entry, Leaf, LeafKind, Metadata, Tree};

/// A tree that shows what the delta has, and a whiteout for each name that it removes. No whiteout has two names, as
/// the EROFS writer wants it.
pub(crate) fn tree_of(delta: &Delta) -> Tree {
    let mut tree = Tree::new(delta.root.metadata.clone());
    tree.leaves.clone_from(&delta.leaves);
    tree.root = directory(&delta.root, &mut tree.leaves);
    tree
}

fn directory(changed: &ChangedDirectory, leaves: &mut Vec<Leaf>) -> Directory {
    let mut out = Directory::new(changed.metadata.clone());
    for (name, change) in &changed.entries {
        let entry = match change {
            Change::Directory(changed) => Entry::Directory(Box::new(directory(changed, leaves))),
            Change::Leaf(id) => Entry::Leaf(*id),
            Change::Removed => {
                let id = homeport_content::LeafId(leaves.len() as u32);
                leaves.push(Leaf { metadata: Metadata::with_mode(0), kind: LeafKind::CharDevice(0) });
                Entry::Leaf(id)
            }
        };
        out.entries.insert(name.clone(), entry);
    }
    out
}
