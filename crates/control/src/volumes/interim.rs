//! Stands in for what `homeport-content` is about to have.

use homeport_content::{Change, Delta, Layered, Metadata};

pub(super) struct Foreign<'a> {
    pub(super) version: u64,
    pub(super) delta: &'a Delta,
    pub(super) own: bool,
}
pub(super) struct Conflict {
    pub(super) path: Vec<u8>,
    pub(super) lost_version: u64,
    pub(super) lost_removed: bool,
}
pub(super) struct Merged {
    pub(super) delta: Delta,
    pub(super) conflicts: Vec<Conflict>,
}
pub(super) fn merge(_: &Layered, _: &Layered, ours: &Delta, since: &[Foreign<'_>]) -> Merged {
    let _ = since.iter().map(|f| (f.version, f.delta, f.own)).count();
    Merged { delta: ours.clone(), conflicts: Vec::new() }
}
pub(super) fn fold(_: &Layered, _: &Delta, upper: &Delta) -> Delta {
    upper.clone()
}
pub(super) fn diff(_: &Layered, new: &Layered) -> Delta {
    let mut delta = Delta::from_tree(&new.flatten());
    delta.root.entries.insert(b"interim"[..].into(), Change::Removed);
    delta.root.metadata = Metadata::with_mode(0o755);
    delta
}
