//! Taking out of a delta what is no change.

use std::collections::{HashMap, HashSet};

use homeport_content::{Change, ChangedDirectory, Delta, Layered, LeafId, Seen};

use super::links::{Origin, Several, visible_names};

/// What is below the names of a leaf of the delta.
struct Below {
    /// One leaf that is equal, under all the names so far.
    same: Option<Origin>,
    names: usize,
}

/// Removes entries that are as they are below: files that were copied up and not changed, and directories on the way.
///
/// A leaf stays unless all of its names are there below, for one leaf that has no others.
pub(super) fn prune(delta: &mut Delta, seen: &Layered, alone: &[bool]) {
    let mut below: HashMap<LeafId, Below> = HashMap::new();
    for (path, change) in delta.walk() {
        let Change::Leaf(id) = change else { continue };
        let same = match (seen.get(&path), delta.leaf(*id)) {
            (Some(Seen::Leaf { leaf, layer, id }), Some(new)) if leaf == new => Some((layer, id)),
            _ => None,
        };
        let entry = below.entry(*id).or_insert(Below { same, names: 0 });
        entry.names += 1;
        if entry.same != same {
            entry.same = None;
        }
    }
    let unchanged = unchanged_leaves(seen, alone, &below);
    prune_directory(&mut delta.root, &mut Vec::new(), seen, &unchanged);
    drop_unnamed(delta);
}

fn unchanged_leaves(seen: &Layered, alone: &[bool], below: &HashMap<LeafId, Below>) -> HashSet<LeafId> {
    let mut several = Several::new(seen);
    let mut unchanged = HashSet::new();
    let mut unsure = Vec::new();
    for (id, Below { same, names }) in below {
        let Some(origin) = *same else { continue };
        let is_alone = alone.get(id.0 as usize).copied().unwrap_or(false);
        if *names == 1 && (is_alone || !several.has(origin)) {
            unchanged.insert(*id);
        } else {
            unsure.push((*id, origin, *names));
        }
    }
    let mut counts: HashMap<Origin, usize> = HashMap::new();
    if !unsure.is_empty() {
        let wanted = unsure.iter().map(|(_, origin, _)| *origin).collect();
        for (_, origin) in visible_names(seen, &wanted) {
            *counts.entry(origin).or_default() += 1;
        }
    }
    let equal = unsure.into_iter().filter(|(_, origin, names)| counts.get(origin) == Some(names));
    unchanged.extend(equal.map(|(id, ..)| id));
    unchanged
}

fn prune_directory(
    directory: &mut ChangedDirectory,
    path: &mut Vec<u8>,
    seen: &Layered,
    unchanged: &HashSet<LeafId>,
) {
    directory.entries.retain(|name, change| {
        let length = path.len();
        path.push(b'/');
        path.extend_from_slice(name);
        let changed = match change {
            Change::Removed => true,
            Change::Leaf(id) => !unchanged.contains(id),
            Change::Directory(below) => {
                prune_directory(below, path, seen, unchanged);
                let same = |found| matches!(found, Seen::Directory(metadata) if *metadata == below.metadata);
                !below.entries.is_empty() || !seen.get(path).is_some_and(same)
            }
        };
        path.truncate(length);
        changed
    });
}

/// Leaves without a name go, so that their number says how many there are.
fn drop_unnamed(delta: &mut Delta) {
    let mut numbers = HashMap::new();
    for (_, change) in delta.walk() {
        if let Change::Leaf(id) = change {
            let next = LeafId(numbers.len() as u32);
            numbers.entry(*id).or_insert(next);
        }
    }
    let mut leaves: Vec<_> = numbers.iter().map(|(old, new)| (*new, *old)).collect();
    leaves.sort_unstable();
    let old = std::mem::take(&mut delta.leaves);
    let mut old: Vec<Option<_>> = old.into_iter().map(Some).collect();
    delta.leaves =
        leaves.into_iter().filter_map(|(_, id)| old.get_mut(id.0 as usize).and_then(Option::take)).collect();
    renumber(&mut delta.root, &numbers);
}

fn renumber(directory: &mut ChangedDirectory, numbers: &HashMap<LeafId, LeafId>) {
    for change in directory.entries.values_mut() {
        match change {
            Change::Directory(below) => renumber(below, numbers),
            Change::Leaf(id) => *id = numbers.get(id).copied().unwrap_or(*id),
            Change::Removed => {}
        }
    }
}
