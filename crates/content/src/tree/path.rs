//! Entries by path. Paths are bytes, and never leave the tree.

use super::{Directory, Entry, EntryRef, Leaf, LeafId, LeafKind, MAX_DEPTH, Tree};
use crate::Metadata;

/// Symbolic links followed by [`Tree::resolve`] before it gives up, as in Linux.
const MAX_LINKS: usize = 40;

/// A path cannot be used in this tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The path has a `..`.
    #[error("`{path}` has a `..`: only paths without it name an entry of a tree")]
    ParentComponent {
        /// The path.
        path: String,
    },
    /// A component of the path is something else than a directory.
    #[error("`{path}` cannot be reached: `{component}` in it is not a directory")]
    NotADirectory {
        /// The path.
        path: String,
        /// The component.
        component: String,
    },
    /// The directory does not exist.
    #[error("there is no directory `{path}`")]
    NotFound {
        /// The path.
        path: String,
    },
    /// The path names the root where something below it is needed.
    #[error("the path is that of the root, which can be neither replaced nor removed")]
    Root,
    /// The path is deeper than [`MAX_DEPTH`].
    #[error("`{path}` is nested deeper than {MAX_DEPTH} directories")]
    TooDeep {
        /// The path.
        path: String,
    },
    /// No leaf has this number.
    #[error("the tree has no leaf number {0}")]
    NoSuchLeaf(u32),
}

/// Components of `path`: absolute and relative are the same, empty ones and `.` are skipped.
pub(crate) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

pub(crate) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

pub(crate) fn split_last(path: &[u8]) -> Result<(Vec<&[u8]>, &[u8]), PathError> {
    let mut parts: Vec<&[u8]> = components(path).collect();
    if parts.contains(&b"..".as_slice()) {
        return Err(PathError::ParentComponent { path: shown(path) });
    }
    let name = parts.pop().ok_or(PathError::Root)?;
    Ok((parts, name))
}

impl Tree {
    /// What is at `path`, without following symbolic links. The empty path is the root.
    pub fn get(&self, path: &[u8]) -> Option<EntryRef<'_>> {
        let mut directory = &self.root;
        let mut parts = components(path).peekable();
        while let Some(part) = parts.next() {
            match directory.entries.get(part)? {
                Entry::Directory(next) => directory = next,
                Entry::Leaf(id) if parts.peek().is_none() => {
                    return Some(EntryRef::Leaf(*id, self.leaf(*id)?));
                }
                Entry::Leaf(_) => return None,
            }
        }
        Some(EntryRef::Directory(directory))
    }

    /// The directory at `path`, without following symbolic links.
    pub fn directory(&self, path: &[u8]) -> Option<&Directory> {
        match self.get(path)? {
            EntryRef::Directory(directory) => Some(directory),
            EntryRef::Leaf(..) => None,
        }
    }

    /// The path, from the root, that `path` leads to when symbolic links are followed as a
    /// process inside would: absolute targets start at the tree's root and `..` stops there.
    ///
    /// Components after the first that does not exist are taken as they are, so the result is
    /// where a new file would be made. `None` for a loop of links or a leaf used as a directory.
    pub fn resolve(&self, path: &[u8]) -> Option<Vec<u8>> {
        let mut pending: Vec<Vec<u8>> = components(path).rev().map(<[u8]>::to_vec).collect();
        let mut done: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(part) = pending.pop() {
            if part == b".." {
                done.pop();
                continue;
            }
            done.push(part);
            let Some(EntryRef::Leaf(_, leaf)) = self.get(&done.join(&b'/')) else {
                continue;
            };
            match &leaf.kind {
                LeafKind::Symlink(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return None;
                    }
                    done.pop();
                    if target.starts_with(b"/") {
                        done.clear();
                    }
                    pending.extend(components(target).rev().map(<[u8]>::to_vec));
                }
                _ if pending.is_empty() => {}
                _ => return None,
            }
        }
        Some(done.join(&b'/'))
    }

    /// The directory at `path` for changing. With `create`, missing directories are made with
    /// mode 0755, owned by root, at the epoch.
    pub fn directory_mut(&mut self, path: &[u8], create: bool) -> Result<&mut Directory, PathError> {
        let parts: Vec<&[u8]> = components(path).collect();
        if parts.contains(&b"..".as_slice()) {
            return Err(PathError::ParentComponent { path: shown(path) });
        }
        self.descend(path, &parts, create)
    }

    /// Puts a new leaf at `path`, in place of whatever is there. Missing parents are made as
    /// by [`Tree::directory_mut`].
    pub fn insert_leaf(&mut self, path: &[u8], leaf: Leaf) -> Result<LeafId, PathError> {
        let (parents, name) = split_last(path)?;
        let id = LeafId(self.leaves.len() as u32);
        self.descend(path, &parents, true)?.entries.insert(name.into(), Entry::Leaf(id));
        self.leaves.push(leaf);
        Ok(id)
    }

    /// Makes `path` one more name of an existing leaf.
    pub fn insert_link(&mut self, path: &[u8], id: LeafId) -> Result<(), PathError> {
        if self.leaf(id).is_none() {
            return Err(PathError::NoSuchLeaf(id.0));
        }
        let (parents, name) = split_last(path)?;
        self.descend(path, &parents, true)?.entries.insert(name.into(), Entry::Leaf(id));
        Ok(())
    }

    /// Takes the entry at `path` out, with all that is below it. `Ok(None)` if there is none.
    pub fn remove(&mut self, path: &[u8]) -> Result<Option<Entry>, PathError> {
        let (parents, name) = split_last(path)?;
        match self.descend(path, &parents, false) {
            Ok(parent) => Ok(parent.entries.remove(name)),
            Err(PathError::NotFound { .. } | PathError::NotADirectory { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn descend(&mut self, path: &[u8], parts: &[&[u8]], create: bool) -> Result<&mut Directory, PathError> {
        if parts.len() > MAX_DEPTH {
            return Err(PathError::TooDeep { path: shown(path) });
        }
        let mut directory = &mut self.root;
        for part in parts {
            if !create && !directory.entries.contains_key(*part) {
                return Err(PathError::NotFound { path: shown(path) });
            }
            let entry = directory
                .entries
                .entry((*part).into())
                .or_insert_with(|| Entry::Directory(Box::new(Directory::new(Metadata::with_mode(0o755)))));
            let Entry::Directory(next) = entry else {
                return Err(PathError::NotADirectory { path: shown(path), component: shown(part) });
            };
            directory = next;
        }
        Ok(directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FileContent;

    fn file(bytes: &[u8]) -> Leaf {
        Leaf { metadata: Metadata::with_mode(0o644), kind: LeafKind::File(FileContent::Inline(bytes.into())) }
    }

    fn symlink(target: &[u8]) -> Leaf {
        Leaf { metadata: Metadata::with_mode(0o777), kind: LeafKind::Symlink(target.into()) }
    }

    #[test]
    fn absolute_relative_and_dotted_spellings_name_one_entry() {
        let mut tree = Tree::default();
        tree.insert_leaf(b"/usr//lib/./a.py", file(b"a")).unwrap();
        for path in [b"usr/lib/a.py".as_slice(), b"/usr/lib/a.py", b"./usr/lib//a.py"] {
            assert!(matches!(tree.get(path), Some(EntryRef::Leaf(..))));
        }
        assert!(tree.get(b"usr/lib/a.py/x").is_none());
        assert!(matches!(tree.get(b""), Some(EntryRef::Directory(_))));
    }

    #[test]
    fn parent_components_and_the_root_are_refused() {
        let mut tree = Tree::default();
        assert!(matches!(tree.insert_leaf(b"a/../b", file(b"")), Err(PathError::ParentComponent { .. })));
        assert_eq!(tree.insert_leaf(b"/", file(b"")), Err(PathError::Root));
        assert_eq!(tree.remove(b"."), Err(PathError::Root));
        assert!(tree.root.entries.is_empty());
    }

    #[test]
    fn a_leaf_in_the_way_is_an_error_and_changes_nothing() {
        let mut tree = Tree::default();
        tree.insert_leaf(b"a", file(b"")).unwrap();
        assert!(matches!(tree.insert_leaf(b"a/b", file(b"")), Err(PathError::NotADirectory { .. })));
        assert_eq!(tree.leaves.len(), 1);
        assert_eq!(tree.remove(b"a/b"), Ok(None));
    }

    #[test]
    fn deeper_than_the_limit_is_refused() {
        let mut tree = Tree::default();
        let deep = b"d/".repeat(MAX_DEPTH + 1);
        assert!(matches!(tree.directory_mut(&deep, true), Err(PathError::TooDeep { .. })));
        assert!(tree.directory_mut(&deep[2..], true).is_ok());
    }

    #[test]
    fn links_are_followed_within_the_tree() {
        let mut tree = Tree::default();
        tree.insert_leaf(b"usr/bin/python", file(b"p")).unwrap();
        tree.insert_leaf(b"bin", symlink(b"usr/bin")).unwrap();
        tree.insert_leaf(b"usr/up", symlink(b"../../../bin/python")).unwrap();
        tree.insert_leaf(b"abs", symlink(b"/bin")).unwrap();
        tree.insert_leaf(b"loop", symlink(b"loop")).unwrap();
        assert_eq!(tree.resolve(b"/bin/new").unwrap(), b"usr/bin/new");
        assert_eq!(tree.resolve(b"usr/up").unwrap(), b"usr/bin/python");
        assert_eq!(tree.resolve(b"abs/python").unwrap(), b"usr/bin/python");
        assert_eq!(tree.resolve(b"none/../x").unwrap(), b"x");
        assert_eq!(tree.resolve(b"loop"), None);
        assert_eq!(tree.resolve(b"usr/bin/python/x"), None);
    }
}
