//! Content by name: digests and trees.
//!
//! A snapshot is an immutable [`Tree`] whose regular files are named by the BLAKE3 digest of
//! their bytes; its own name is the digest of its canonical [encoding](mod@encoding). A [`Delta`] is
//! what changed from one to another; a version of a Volume is a snapshot with deltas over it, read
//! as [`Layered`]. [`Edit`] makes deltas, [`diff`] finds them, [`fold`] makes one of two, and
//! [`merge`] does one to a version that it was not made for. Everything
//! here is formats and pure functions. There is no I/O: where content lives is the business of
//! `homeport-store`, how it is mounted that of `homeport-fs`.

mod delta;
mod diff;
mod digest;
mod edit;
pub mod encoding;
mod fold;
mod layered;
mod merge;
mod metadata;
mod replace;
mod tree;

pub use delta::{Change, ChangedDirectory, Delta, DeltaId, Stack, WalkDelta};
pub use diff::diff;
pub use digest::{Digest, ParseDigestError, SnapshotId};
pub use edit::{Edit, EditError};
pub use encoding::{DecodeError, DecodeErrorKind};
pub use fold::fold;
pub use layered::{Layered, Seen, WalkLayered};
pub use merge::{Conflict, Foreign, Merged, merge};
pub use metadata::{Metadata, Timestamp};
pub use tree::{
    Directory, Entry, EntryRef, FileContent, INLINE_LIMIT, InvalidTree, Leaf, LeafId, LeafKind, MAX_DEPTH,
    PathError, Tree, Walk,
};
