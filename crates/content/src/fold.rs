//! Two deltas as one.

use crate::layered::View;
use crate::replace::{Renumbered, child_directory, drop_unchanged, hide};
use crate::{Change, ChangedDirectory, Delta, Layered, Leaf, LeafId};

/// The delta that does to `below` what `lower` and then `upper` do. Its cost is in the deltas: of `below`, only names in
/// them are looked at, and the entries of directories that `lower` removes and `upper` makes anew.
pub fn fold(below: &Layered, lower: &Delta, upper: &Delta) -> Delta {
    let mut folding = Folding {
        lower: Source { leaves: &lower.leaves, numbers: Renumbered::new() },
        upper: Source { leaves: &upper.leaves, numbers: Renumbered::new() },
        leaves: Vec::with_capacity(lower.leaves.len() + upper.leaves.len()),
    };
    let root = below.root();
    let mut folded = folding.directory(Some(&root), &lower.root, &upper.root);
    drop_unchanged(&mut folded, Some(&root));
    let mut delta = Delta { root: folded, leaves: folding.leaves };
    delta.renumber();
    delta
}

struct Folding<'a> {
    lower: Source<'a>,
    upper: Source<'a>,
    leaves: Vec<Leaf>,
}

struct Source<'a> {
    leaves: &'a [Leaf],
    numbers: Renumbered<LeafId>,
}

impl Source<'_> {
    fn copy(&mut self, change: &Change, into: &mut Vec<Leaf>) -> Option<Change> {
        Some(match change {
            Change::Removed => Change::Removed,
            Change::Leaf(id) => {
                let leaf = self.leaves.get(id.0 as usize)?;
                Change::Leaf(self.numbers.copy(*id, leaf, into))
            }
            Change::Directory(directory) => Change::Directory(Box::new(self.copy_directory(directory, into))),
        })
    }

    fn copy_directory(&mut self, directory: &ChangedDirectory, into: &mut Vec<Leaf>) -> ChangedDirectory {
        let entries = directory.entries.iter();
        let entries = entries.filter_map(|(name, change)| Some((name.clone(), self.copy(change, into)?)));
        ChangedDirectory { metadata: directory.metadata.clone(), entries: entries.collect() }
    }
}

impl Folding<'_> {
    fn directory(
        &mut self,
        below: Option<&View<'_>>,
        lower: &ChangedDirectory,
        upper: &ChangedDirectory,
    ) -> ChangedDirectory {
        let mut folded = ChangedDirectory::new(upper.metadata.clone());
        for (name, change) in &lower.entries {
            if !upper.entries.contains_key(name)
                && let Some(change) = self.lower.copy(change, &mut self.leaves)
            {
                folded.entries.insert(name.clone(), change);
            }
        }
        for (name, change) in &upper.entries {
            if let Some(change) = self.change(below, name, lower.entries.get(name), change) {
                folded.entries.insert(name.clone(), change);
            }
        }
        folded
    }

    fn change(
        &mut self,
        below: Option<&View<'_>>,
        name: &[u8],
        lower: Option<&Change>,
        upper: &Change,
    ) -> Option<Change> {
        match (lower, upper) {
            // What the lower one added is gone without a trace.
            (_, Change::Removed) => below?.child(name).map(|_| Change::Removed),
            (Some(Change::Directory(lower)), Change::Directory(upper)) => {
                let below = child_directory(below, name);
                Some(Change::Directory(Box::new(self.directory(below.as_ref(), lower, upper))))
            }
            (Some(Change::Removed | Change::Leaf(_)), Change::Directory(upper)) => {
                let mut directory = self.upper.copy_directory(upper, &mut self.leaves);
                hide(&mut directory, child_directory(below, name).as_ref());
                Some(Change::Directory(Box::new(directory)))
            }
            (None, Change::Directory(_)) | (_, Change::Leaf(_)) => self.upper.copy(upper, &mut self.leaves),
        }
    }
}
