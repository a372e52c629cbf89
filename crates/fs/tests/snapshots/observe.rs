//! A directory as a tree, read with nothing but ordinary calls.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use homeport_content::{
    Digest, Directory, Entry, EntryRef, FileContent, INLINE_LIMIT, Leaf, LeafId, LeafKind, Metadata,
    Timestamp, Tree,
};

/// The tree that a directory is. Hard links are those of inode numbers.
pub fn observe(root: &Path) -> Tree {
    let mut tree = Tree::default();
    let mut links = HashMap::new();
    tree.root = directory(root, &mut tree.leaves, &mut links);
    tree
}

/// A tree without its hard links: each name has a leaf of its own.
pub fn unlinked(tree: &Tree) -> Tree {
    let mut flat = Tree::new(tree.root.metadata.clone());
    for (path, entry) in tree.walk() {
        match entry {
            EntryRef::Directory(directory) => {
                flat.directory_mut(&path, true).unwrap().metadata = directory.metadata.clone();
            }
            EntryRef::Leaf(_, leaf) => {
                flat.insert_leaf(&path, leaf.clone()).unwrap();
            }
        }
    }
    flat
}

/// Fails with what differs.
#[track_caller]
pub fn assert_same(found: &Tree, expected: &Tree, what: &str) {
    if found.id() == expected.id() {
        return;
    }
    let lines = |tree: &Tree| -> BTreeMap<String, String> {
        let mut names: HashMap<LeafId, String> = HashMap::new();
        let root = (String::from("/"), format!("{:?}", tree.root.metadata));
        let rest = tree.walk().map(|(path, entry)| {
            let path = String::from_utf8_lossy(&path).into_owned();
            let line = match entry {
                EntryRef::Directory(directory) => format!("directory {:?}", directory.metadata),
                EntryRef::Leaf(id, leaf) => {
                    let first = names.entry(id).or_insert_with(|| path.clone());
                    format!("{leaf:?} = {first}")
                }
            };
            (path, line)
        });
        std::iter::once(root).chain(rest).collect()
    };
    let (found, expected) = (lines(found), lines(expected));
    let mut report = String::new();
    for path in found.keys().chain(expected.keys()) {
        if found.get(path) != expected.get(path) && !report.contains(&format!("`{path}`")) {
            let (found, expected) = (found.get(path), expected.get(path));
            report += &format!("\n`{path}`\n   found    {found:?}\n   expected {expected:?}");
        }
    }
    panic!("{what}: the trees differ{report}");
}

fn directory(path: &Path, leaves: &mut Vec<Leaf>, links: &mut HashMap<u64, LeafId>) -> Directory {
    let mut found = Directory::new(metadata(path));
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let child = entry.path();
        let about = fs::symlink_metadata(&child).unwrap();
        let name = entry.file_name().as_bytes().into();
        if about.is_dir() {
            let directory = Box::new(directory(&child, leaves, links));
            found.entries.insert(name, Entry::Directory(directory));
            continue;
        }
        let id = *links.entry(about.ino()).or_insert_with(|| {
            leaves.push(Leaf { metadata: metadata(&child), kind: kind(&child, &about) });
            LeafId(leaves.len() as u32 - 1)
        });
        found.entries.insert(name, Entry::Leaf(id));
    }
    found
}

fn kind(path: &Path, about: &fs::Metadata) -> LeafKind {
    let file_type = about.file_type();
    if file_type.is_symlink() {
        LeafKind::Symlink(fs::read_link(path).unwrap().into_os_string().into_vec().into())
    } else if file_type.is_fifo() {
        LeafKind::Fifo
    } else if file_type.is_char_device() {
        LeafKind::CharDevice(about.rdev())
    } else if file_type.is_block_device() {
        LeafKind::BlockDevice(about.rdev())
    } else {
        assert!(file_type.is_file(), "{}", path.display());
        let bytes = fs::read(path).unwrap();
        assert_eq!(bytes.len() as u64, about.len());
        LeafKind::File(if bytes.len() <= INLINE_LIMIT {
            FileContent::Inline(bytes.into())
        } else {
            FileContent::Object { digest: Digest::of(&bytes), size: about.len() }
        })
    }
}

fn metadata(path: &Path) -> Metadata {
    let about = fs::symlink_metadata(path).unwrap();
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Metadata {
        mode: about.mode() & 0o7777,
        uid: about.uid(),
        gid: about.gid(),
        mtime: Timestamp { seconds: about.mtime(), nanos: about.mtime_nsec() as u32 },
        xattrs: names
            .map(|name| {
                let mut value = vec![0; 4096];
                let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
                (name.into(), value[..length].into())
            })
            .collect(),
    }
}
