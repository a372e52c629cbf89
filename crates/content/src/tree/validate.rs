use super::{Directory, Entry, INLINE_LIMIT, LeafKind, MAX_DEPTH, Tree};
use crate::{FileContent, Metadata};

/// Longest name of a directory entry or attribute.
pub(crate) const MAX_NAME: usize = 255;
/// Longest target of a symbolic link.
pub(crate) const MAX_TARGET: usize = 4095;
/// Longest value of an attribute: EROFS has 16 bits for it.
pub(crate) const MAX_ATTRIBUTE: usize = 65_535;

/// The tree cannot be stored or mounted.
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
                    if let Some(reason) =
                        metadata_fault(&leaf.metadata).or_else(|| kind_fault(&leaf.kind))
                    {
                        return refuse(path, reason);
                    }
                }
            }
            path.truncate(length);
        }
        Ok(())
    }
}

fn refuse(path: &[u8], reason: &'static str) -> Result<(), InvalidTree> {
    Err(InvalidTree {
        path: String::from_utf8_lossy(path).into_owned(),
        reason,
    })
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
            Some("the target of a symbolic link is empty, too long or contains a zero byte")
        }
        LeafKind::CharDevice(0) => Some("a character device 0:0 is a whiteout, not a file"),
        _ => None,
    }
}
