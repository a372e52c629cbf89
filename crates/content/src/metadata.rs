//! What files carry besides their content.

use std::collections::BTreeMap;

/// A modification time: seconds since 1970 (negative before it) and nanoseconds after that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Whole seconds since 1970-01-01T00:00:00Z, rounded down.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, below 1,000,000,000.
    pub nanos: u32,
}

/// What a file carries besides its content. Link counts, inode numbers, access and change times
/// are not kept: they belong to a mount, not to a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Metadata {
    /// Permission, set-id and sticky bits; nothing outside `0o7777`.
    pub mode: u32,
    /// Owner as seen inside a container.
    pub uid: u32,
    /// Group as seen inside a container.
    pub gid: u32,
    /// Time of the last change of content.
    pub mtime: Timestamp,
    /// Extended attributes by full name (`security.capability`, `user.…`).
    pub xattrs: BTreeMap<Box<[u8]>, Box<[u8]>>,
}

impl Metadata {
    /// What a directory shows of which no layer says anything.
    pub(crate) const NONE: Metadata = Metadata {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Timestamp { seconds: 0, nanos: 0 },
        xattrs: BTreeMap::new(),
    };

    /// Metadata with this mode, owned by root, at the epoch, without attributes.
    pub fn with_mode(mode: u32) -> Metadata {
        Metadata { mode, uid: 0, gid: 0, mtime: Timestamp::default(), xattrs: BTreeMap::new() }
    }
}
