//! Two changes of one thing: part by part.

use crate::{Leaf, Metadata, Timestamp};

/// What became of two changes.
pub(super) struct Settled<T> {
    pub(super) value: T,
    /// Whether both changed one part, and differently.
    pub(super) conflict: bool,
}

/// Whether two differ in nothing but the time.
pub(super) fn same_but_time(one: &Metadata, other: &Metadata) -> bool {
    (one.mode, one.uid, one.gid, &one.xattrs) == (other.mode, other.uid, other.gid, &other.xattrs)
}

/// Whether two leaves differ in nothing but the time.
pub(super) fn same_leaf_but_time(one: &Leaf, other: &Leaf) -> bool {
    one.kind == other.kind && same_but_time(&one.metadata, &other.metadata)
}

/// Metadata of a directory. The time never conflicts: ours is the later one.
pub(super) fn directory(seen: Option<&Metadata>, theirs: &Metadata, ours: &Metadata) -> Settled<Metadata> {
    let mut settled = metadata(seen, theirs, ours);
    settled.value.mtime = time(seen, theirs, ours);
    settled
}

/// Leaves. Where both changed the content, ours is taken whole.
pub(super) fn leaf(seen: Option<&Leaf>, theirs: &Leaf, ours: &Leaf) -> Settled<Leaf> {
    let whole = |conflict| Settled { value: ours.clone(), conflict };
    if theirs.kind != ours.kind {
        let Some(seen) = seen else { return whole(true) };
        let same_type =
            [&theirs.kind, &ours.kind].map(std::mem::discriminant) == [std::mem::discriminant(&seen.kind); 2];
        if !same_type || (theirs.kind != seen.kind && ours.kind != seen.kind) {
            // One side may have left all as it was, whatever the other made of it.
            if same_leaf_but_time(seen, ours) {
                return Settled { value: theirs.clone(), conflict: false };
            }
            return whole(!same_leaf_but_time(seen, theirs));
        }
    }
    let before = seen.map(|seen| &seen.metadata);
    let mut settled = metadata(before, &theirs.metadata, &ours.metadata);
    let theirs_is_new = seen.is_some_and(|seen| ours.kind == seen.kind && theirs.kind != seen.kind);
    settled.value.mtime = match theirs_is_new {
        true => theirs.metadata.mtime,
        false => time(before, &theirs.metadata, &ours.metadata),
    };
    let kind = if theirs_is_new { theirs.kind.clone() } else { ours.kind.clone() };
    Settled { value: Leaf { metadata: settled.value, kind }, conflict: settled.conflict }
}

/// Mode, owner and attributes.
fn metadata(seen: Option<&Metadata>, theirs: &Metadata, ours: &Metadata) -> Settled<Metadata> {
    let mut conflict = false;
    let mut value = ours.clone();
    value.mode = pick(seen.map(|seen| seen.mode), theirs.mode, ours.mode, &mut conflict);
    value.uid = pick(seen.map(|seen| seen.uid), theirs.uid, ours.uid, &mut conflict);
    value.gid = pick(seen.map(|seen| seen.gid), theirs.gid, ours.gid, &mut conflict);
    let Some(seen) = seen else {
        conflict |= theirs.xattrs != ours.xattrs;
        return Settled { value, conflict };
    };
    value.xattrs.clear();
    for name in theirs.xattrs.keys().chain(ours.xattrs.keys()) {
        let of = |metadata: &Metadata| metadata.xattrs.get(name).cloned();
        if let Some(attribute) = pick(Some(of(seen)), of(theirs), of(ours), &mut conflict) {
            value.xattrs.insert(name.clone(), attribute);
        }
    }
    Settled { value, conflict }
}

/// The side that changed something; ours if both did.
fn pick<T: PartialEq>(seen: Option<T>, theirs: T, ours: T, conflict: &mut bool) -> T {
    if theirs == ours {
        return ours;
    }
    if seen.as_ref() == Some(&ours) {
        return theirs;
    }
    *conflict |= seen.as_ref() != Some(&theirs);
    ours
}

fn time(seen: Option<&Metadata>, theirs: &Metadata, ours: &Metadata) -> Timestamp {
    if seen.is_some_and(|seen| seen.mtime == ours.mtime) { theirs.mtime } else { ours.mtime }
}
