//! What a tree may hold: what the encoding can say and every backend can mount.

use super::{Directory, Entry, INLINE_LIMIT, LeafKind, MAX_DEPTH, Tree};
use crate::{FileContent, Metadata};

/// Longest name of a directory entry or attribute.
const MAX_NAME: usize = 255;
/// Longest target of a symbolic link. Linux takes 4095 bytes, but the EROFS writer may start a
/// target up to 32 bytes into a block, and the kernel wants it to end within that block.
const MAX_TARGET: usize = 4000;
/// Longest value of an attribute: EROFS has 16 bits for it.
const MAX_ATTRIBUTE: usize = 65_535;
/// Most attributes of a file, and most bytes of their names and values: EROFS counts them in 8
/// bits and in 16 bits of 4-byte words.
const MAX_ATTRIBUTES: usize = 200;
const MAX_ATTRIBUTE_BYTES: usize = 200 * 1024;

/// The tree or delta cannot be stored or mounted. What is valid can always be mounted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}`: {reason}")]
pub struct InvalidTree {
    /// Where, from the root.
    pub path: String,
    /// What is wrong there.
    pub reason: &'static str,
}

impl Tree {
    /// Checks everything that [`Tree::decode`] will demand of the encoding.
    pub fn validate(&self) -> Result<(), InvalidTree> {
        let mut path = Vec::new();
        self.validate_directory(&self.root, &mut path, 0)
    }

    fn validate_directory(
        &self,
        directory: &Directory,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), InvalidTree> {
        if depth > MAX_DEPTH {
            return refuse(path, "nested too deep");
        }
        if let Some(reason) = metadata_fault(&directory.metadata) {
            return refuse(path, reason);
        }
        for (name, entry) in &directory.entries {
            let length = path.len();
            path.push(b'/');
            path.extend_from_slice(name);
            if let Some(reason) = name_fault(name) {
                return refuse(path, reason);
            }
            match entry {
                Entry::Directory(directory) => {
                    self.validate_directory(directory, path, depth + 1)?;
                }
                Entry::Leaf(id) => {
                    let Some(leaf) = self.leaf(*id) else {
                        return refuse(path, "names a leaf that the tree does not have");
                    };
                    if let Some(reason) = metadata_fault(&leaf.metadata).or_else(|| kind_fault(&leaf.kind)) {
                        return refuse(path, reason);
                    }
                }
            }
            path.truncate(length);
        }
        Ok(())
    }
}

pub(crate) fn refuse(path: &[u8], reason: &'static str) -> Result<(), InvalidTree> {
    Err(InvalidTree { path: String::from_utf8_lossy(path).into_owned(), reason })
}

pub(crate) fn name_fault(name: &[u8]) -> Option<&'static str> {
    match name {
        b"" => Some("a name is empty"),
        b"." | b".." => Some("a name is `.` or `..`"),
        _ if name.len() > MAX_NAME => Some("a name is longer than 255 bytes"),
        _ if name.iter().any(|byte| matches!(byte, 0 | b'/')) => {
            Some("a name contains a slash or a zero byte")
        }
        _ => None,
    }
}

pub(crate) fn metadata_fault(metadata: &Metadata) -> Option<&'static str> {
    if metadata.mode & !0o7777 != 0 {
        return Some("the mode has bits outside 07777");
    }
    if metadata.mtime.nanos >= 1_000_000_000 {
        return Some("the time has a second or more of nanoseconds");
    }
    let names = metadata.xattrs.keys().map(|name| name.len());
    let values = metadata.xattrs.values().map(|value| value.len());
    let bytes: usize = names.chain(values).sum();
    if metadata.xattrs.len() > MAX_ATTRIBUTES || bytes > MAX_ATTRIBUTE_BYTES {
        return Some("it has more than 200 attributes, or more than 200 KiB of them");
    }
    metadata.xattrs.iter().find_map(|(name, value)| {
        if name.is_empty() || name.len() > MAX_NAME || name.contains(&0) {
            Some("the name of an attribute is empty, too long or contains a zero byte")
        } else if value.len() > MAX_ATTRIBUTE {
            Some("the value of an attribute is longer than 65535 bytes")
        } else {
            None
        }
    })
}

pub(crate) fn kind_fault(kind: &LeafKind) -> Option<&'static str> {
    match kind {
        LeafKind::File(FileContent::Inline(bytes)) if bytes.len() > INLINE_LIMIT => {
            Some("an inline content is longer than 512 bytes")
        }
        LeafKind::Symlink(target)
            if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) =>
        {
            Some("the target of a symbolic link is empty, longer than 4000 bytes or has a zero byte")
        }
        LeafKind::CharDevice(number) | LeafKind::BlockDevice(number) if *number > u64::from(u32::MAX) => {
            Some("a device number has more than 32 bits")
        }
        LeafKind::CharDevice(0) => Some("a character device 0:0 is a whiteout, not a file"),
        _ => None,
    }
}
