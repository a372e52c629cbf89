//! Cutting directories out of a tree, for steps that make a layer and not an image.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use homeport_content::{Directory, Entry, Tree};

/// `tree` with nothing but the directories `kept` (absolute paths) and the way to them.
///
/// # Errors
///
/// The first path that isn't a directory of the tree, or that isn't absolute and plain.
pub(crate) fn only(tree: &Tree, kept: &[String]) -> Result<Tree, String> {
    let mut paths = Vec::with_capacity(kept.len());
    for path in kept {
        let plain = components(path).filter(|parts| !parts.is_empty());
        let parts = plain.ok_or_else(|| format!("`{path}` is not an absolute path of a directory"))?;
        if tree.directory(path.as_bytes()).is_none() {
            return Err(format!("the command made no directory `{path}`"));
        }
        paths.push(parts);
    }
    let mut pruned = tree.clone();
    prune(&mut pruned.root, &paths);
    // Laid over an empty tree, only the leaves that are still named are taken along.
    let mut result = Tree::new(pruned.root.metadata.clone());
    result.overlay(&pruned);
    Ok(result)
}

fn components(path: &str) -> Option<Vec<&[u8]>> {
    let mut all = Path::new(path).components();
    if all.next() != Some(Component::RootDir) {
        return None;
    }
    all.map(|part| match part {
        Component::Normal(name) => Some(OsStr::as_bytes(name)),
        _ => None,
    })
    .collect()
}

fn prune(directory: &mut Directory, kept: &[Vec<&[u8]>]) {
    directory.entries.retain(|name, entry| {
        let below: Vec<Vec<&[u8]>> = kept
            .iter()
            .filter(|path| path.first().is_some_and(|first| *first == name.as_ref()))
            .map(|path| path[1..].to_vec())
            .collect();
        if below.iter().any(Vec::is_empty) {
            return true;
        }
        match entry {
            Entry::Directory(directory) if !below.is_empty() => {
                prune(directory, &below);
                true
            }
            _ => false,
        }
    });
}

#[cfg(test)]
mod tests {
    use homeport_content::{FileContent, Leaf, LeafKind, Metadata};

    use super::*;

    fn tree(files: &[&str]) -> Tree {
        let mut tree = Tree::new(Metadata::with_mode(0o755));
        for path in files {
            let content = FileContent::Inline(path.as_bytes().into());
            let leaf = Leaf { metadata: Metadata::with_mode(0o644), kind: LeafKind::File(content) };
            tree.insert_leaf(path.as_bytes(), leaf).unwrap();
        }
        tree
    }

    fn paths(tree: &Tree) -> Vec<String> {
        tree.walk().map(|(path, _)| String::from_utf8(path).unwrap()).collect()
    }

    #[test]
    fn only_the_named_directories_and_the_way_to_them_stay() {
        let whole = tree(&["/a/b/one", "/a/b/deep/two", "/a/c/three", "/d/four", "/bin/sh"]);
        let kept = only(&whole, &["/a/b".to_owned(), "/d".to_owned()]).unwrap();
        assert_eq!(paths(&kept), paths(&tree(&["/a/b/one", "/a/b/deep/two", "/d/four"])));
        assert_eq!(kept.leaves.len(), 3);
        assert_eq!(kept.id(), tree(&["/a/b/one", "/a/b/deep/two", "/d/four"]).id());
    }

    #[test]
    fn path_that_is_no_directory_is_named() {
        let whole = tree(&["/a/file"]);
        for path in ["/a/file", "/missing", "a", "/", "/a/../a"] {
            assert!(only(&whole, &[path.to_owned()]).unwrap_err().contains(path), "{path}");
        }
    }
}
