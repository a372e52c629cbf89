//! Edits against a flat map.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod random;

use std::collections::BTreeMap;
use std::sync::Arc;

use homeport_content::{
    Directory, Edit, EditError, Entry, Layered, Leaf, Metadata, PathError, Seen, Timestamp, Tree,
};
use proptest::collection::vec;
use proptest::prelude::*;
use random::{config, few_leaf, few_metadata, few_tree, layered};

const NOW: Timestamp = Timestamp { seconds: 77, nanos: 0 };

#[derive(Debug, Clone)]
enum At {
    Directory(Metadata),
    /// With the number of the file.
    Leaf(usize, Leaf),
}

#[derive(Debug, Clone)]
struct Model {
    paths: BTreeMap<Vec<u8>, At>,
    next: usize,
}

fn is_within(path: &[u8], directory: &[u8]) -> bool {
    directory.is_empty()
        || path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// The directories that lead to a path, without the root.
fn parents(path: &[u8]) -> Vec<Vec<u8>> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| path[..at].to_vec()).collect()
}

impl Model {
    fn of(layered: &Layered) -> Model {
        let mut files = BTreeMap::new();
        let mut paths = BTreeMap::new();
        for (path, seen) in layered.walk(b"") {
            let at = match seen {
                Seen::Directory(metadata) => At::Directory(metadata.clone()),
                Seen::Leaf { leaf, layer, id } => {
                    let next = files.len();
                    At::Leaf(*files.entry((layer, id)).or_insert(next), leaf.clone())
                }
            };
            paths.insert(path, at);
        }
        Model { paths, next: files.len() }
    }

    fn is_leaf(&self, path: &[u8]) -> bool {
        matches!(self.paths.get(path), Some(At::Leaf(..)))
    }

    fn is_directory(&self, path: &[u8]) -> bool {
        matches!(self.paths.get(path), Some(At::Directory(_)))
    }

    fn put(&mut self, path: &[u8], at: At) -> Option<()> {
        if parents(path).iter().any(|parent| self.is_leaf(parent)) {
            return None;
        }
        match at {
            At::Leaf(..) if self.is_directory(path) => return None,
            At::Directory(_) if self.is_leaf(path) => return None,
            _ => {}
        }
        for parent in parents(path) {
            self.paths.entry(parent).or_insert(At::Directory(Metadata::with_mode(0o755)));
        }
        self.paths.insert(path.to_vec(), at);
        Some(())
    }

    fn put_new(&mut self, path: &[u8], leaf: Leaf) -> Option<()> {
        self.next += 1;
        self.put(path, At::Leaf(self.next, leaf))
    }

    fn below(&self, path: &[u8]) -> Vec<(Vec<u8>, At)> {
        let found = self.paths.iter().filter(|(other, _)| is_within(other, path));
        found.map(|(path, at)| (path.clone(), at.clone())).collect()
    }

    fn remove(&mut self, path: &[u8]) {
        self.paths.retain(|other, _| !is_within(other, path));
    }

    /// All of it or nothing.
    fn apply(&mut self, operation: &Operation) -> Option<()> {
        let mut after = self.clone();
        after.try_apply(operation)?;
        *self = after;
        Some(())
    }

    fn try_apply(&mut self, operation: &Operation) -> Option<()> {
        match operation {
            Operation::Put(path, leaf) => self.put_new(path, leaf.clone()),
            Operation::Directory(path) => {
                let known = self.paths.get(path).cloned();
                self.put(path, known.unwrap_or(At::Directory(Metadata::with_mode(0o755))))
            }
            .filter(|()| self.is_directory(path)),
            Operation::SetDirectory(path, metadata) => self.put(path, At::Directory(metadata.clone())),
            Operation::Remove(path, recursive) => {
                let removable = self.is_leaf(path) || (self.is_directory(path) && *recursive);
                if !removable {
                    return None;
                }
                self.remove(path);
                Some(())
            }
            Operation::Copy(from, to) => {
                let found = self.below(from);
                if found.is_empty() || (self.is_directory(from) && is_within(to, from)) {
                    return None;
                }
                for (path, at) in found {
                    let path = [to, &path[from.len()..]].concat();
                    match at {
                        At::Directory(metadata) => self.put(&path, At::Directory(metadata))?,
                        At::Leaf(_, mut leaf) => {
                            leaf.metadata.mtime = NOW;
                            self.put_new(&path, leaf)?;
                        }
                    }
                }
                Some(())
            }
            Operation::Rename(from, to) => {
                let found = self.below(from);
                if found.is_empty() {
                    return None;
                }
                if let (Some(At::Leaf(from, _)), Some(At::Leaf(to, _))) =
                    (self.paths.get(from), self.paths.get(to))
                    && from == to
                {
                    return Some(());
                }
                if from == to {
                    return Some(());
                }
                if self.is_directory(from) && (is_within(to, from) || self.below(to).len() > 1) {
                    return None;
                }
                if self.is_leaf(from) && self.is_directory(to) {
                    return None;
                }
                if parents(to).contains(from) {
                    return None;
                }
                self.remove(from);
                for (path, at) in found {
                    self.put(&[to, &path[from.len()..]].concat(), at)?;
                }
                Some(())
            }
            Operation::Tree(path, tree) => {
                let known = self.is_directory(path);
                let of_tree = Model::of(&Layered::of(Arc::new(tree.clone())));
                if !known {
                    self.put(path, At::Directory(tree.root.metadata.clone()))?;
                }
                let first = self.next + 1;
                self.next += of_tree.next + 1;
                for (below, at) in of_tree.paths {
                    let path = [path, &b"/"[..], &below].concat();
                    let at = match at {
                        At::Leaf(number, leaf) => At::Leaf(first + number, leaf),
                        directory => directory,
                    };
                    self.put(&path, at)?;
                }
                Some(())
            }
        }
    }

    /// As a tree without times of directories.
    fn tree(&self) -> Tree {
        let mut tree = Tree::default();
        let mut files = BTreeMap::new();
        for (path, at) in &self.paths {
            match at {
                At::Directory(metadata) => {
                    tree.directory_mut(path, true).unwrap().metadata = timeless(metadata)
                }
                At::Leaf(number, leaf) => match files.get(number) {
                    Some(id) => tree.insert_link(path, *id).unwrap(),
                    None => drop(files.insert(*number, tree.insert_leaf(path, leaf.clone()).unwrap())),
                },
            }
        }
        tree
    }
}

fn timeless(metadata: &Metadata) -> Metadata {
    Metadata { mtime: Timestamp::default(), ..metadata.clone() }
}

fn without_times(mut tree: Tree) -> Tree {
    fn clear(directory: &mut Directory) {
        directory.metadata = timeless(&directory.metadata);
        for entry in directory.entries.values_mut() {
            if let Entry::Directory(directory) = entry {
                clear(directory);
            }
        }
    }
    clear(&mut tree.root);
    tree.root.metadata = Metadata::with_mode(0o755);
    tree
}

#[derive(Debug, Clone)]
enum Operation {
    Put(Vec<u8>, Leaf),
    Directory(Vec<u8>),
    SetDirectory(Vec<u8>, Metadata),
    Remove(Vec<u8>, bool),
    Copy(Vec<u8>, Vec<u8>),
    Rename(Vec<u8>, Vec<u8>),
    Tree(Vec<u8>, Tree),
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    vec((b'a'..b'e').prop_map(|byte| vec![byte]), 1..4).prop_map(|names| names.join(&b'/'))
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        3 => (path(), few_leaf()).prop_map(|(path, leaf)| Operation::Put(path, leaf)),
        1 => path().prop_map(Operation::Directory),
        1 => (path(), few_metadata()).prop_map(|(path, metadata)| Operation::SetDirectory(path, metadata)),
        2 => (path(), any::<bool>()).prop_map(|(path, recursive)| Operation::Remove(path, recursive)),
        2 => (path(), path()).prop_map(|(from, to)| Operation::Copy(from, to)),
        3 => (path(), path()).prop_map(|(from, to)| Operation::Rename(from, to)),
        1 => (path(), few_tree()).prop_map(|(path, tree)| Operation::Tree(path, tree)),
    ]
}

fn apply(edit: &mut Edit<'_>, operation: &Operation) -> Result<(), EditError> {
    match operation {
        Operation::Put(path, leaf) => edit.put_leaf(path, leaf.clone()),
        Operation::Directory(path) => edit.make_directory(path),
        Operation::SetDirectory(path, metadata) => edit.set_directory(path, metadata.clone()),
        Operation::Remove(path, recursive) => edit.remove(path, *recursive),
        Operation::Copy(from, to) => edit.copy(from, to, true),
        Operation::Rename(from, to) => edit.rename(from, to),
        Operation::Tree(path, tree) => edit.put_tree(path, tree),
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn edits_do_what_they_do_to_a_map(below in layered(), operations in vec(operation(), 1..12)) {
        let mut model = Model::of(&below);
        let mut edit = Edit::new(&below, NOW);
        for operation in &operations {
            let expected = model.apply(operation);
            let done = apply(&mut edit, operation);
            prop_assert_eq!(done.is_ok(), expected.is_some(), "{:?}: {:?}", operation, done);
            for path in model.paths.keys() {
                prop_assert!(edit.get(path).is_some());
            }
            let listed = edit.list(b"").unwrap().len();
            prop_assert_eq!(listed, model.paths.keys().filter(|path| !path.contains(&b'/')).count());
        }
        let delta = edit.finish();
        prop_assert_eq!(delta.validate(), Ok(()));
        for (path, change) in delta.walk() {
            if *change == homeport_content::Change::Removed {
                prop_assert!(below.get(&path).is_some(), "{:?}", path);
            }
        }
        let found = without_times(below.with(Arc::new(delta)).flatten());
        prop_assert_eq!(found.id(), model.tree().id(), "{:?}\n{:?}", found, model.paths);
    }
}

#[test]
fn times_of_directories_say_when_names_came_or_went() {
    let mut tree = Tree::default();
    let leaf = Leaf { metadata: Metadata::with_mode(0o644), kind: homeport_content::LeafKind::Fifo };
    tree.insert_leaf(b"a/b/f", leaf.clone()).unwrap();
    tree.insert_leaf(b"z/f", leaf.clone()).unwrap();
    let below = Layered::of(Arc::new(tree));
    let mut edit = Edit::new(&below, NOW);
    edit.put_leaf(b"a/b/g", leaf).unwrap();
    edit.make_directory(b"z").unwrap();
    let time = |edit: &Edit<'_>, path: &[u8]| edit.get(path).unwrap().metadata().mtime;
    assert_eq!(time(&edit, b"a/b"), NOW);
    assert_eq!(time(&edit, b"a"), Timestamp::default());
    assert_eq!(time(&edit, b"z"), Timestamp::default());
    let delta = edit.finish();
    // What was only looked at is not in it.
    assert_eq!(delta.walk().map(|(path, _)| path).collect::<Vec<_>>(), [&b"a"[..], b"a/b", b"a/b/g"]);
}

#[test]
fn names_that_cannot_be_are_refused() {
    let below = Layered::of(Arc::default());
    let mut edit = Edit::new(&below, NOW);
    for path in [&b"a\0b"[..], &[b'a'; 256], b"d/\0/f"] {
        assert!(matches!(edit.make_directory(path), Err(EditError::InvalidName { .. })));
    }
    let deep = b"d/".repeat(1025);
    let refused = edit.make_directory(&deep).unwrap_err();
    assert!(matches!(refused, EditError::Path(PathError::TooDeep { .. })), "{refused}");
    assert!(matches!(edit.remove(b"a/..", true), Err(EditError::Path(PathError::ParentComponent { .. }))));
    assert!(matches!(edit.remove(b"/", true), Err(EditError::Path(PathError::Root))));
    edit.make_directory(&deep[2..]).unwrap();
    assert_eq!(edit.finish().validate(), Ok(()));
}
