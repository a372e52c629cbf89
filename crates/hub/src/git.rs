//! What git and its large-file extension would call a file, computed without git.
//!
//! The library names a small file's cached copy by its git blob id and a large one's by its
//! SHA-256, and some of its code checks a file against that name. So both must be the true ones.

use std::collections::BTreeMap;

use sha1::{Digest as _, Sha1};

use crate::hash::{GitId, Sha256};
use crate::record::ModelFile;

/// Files above this size are large files, whatever their name.
const LARGE_FILE_BYTES: u64 = 10 * 1024 * 1024;

/// Endings of the files that a new model repository hands to the large-file extension.
const LARGE_FILE_ENDINGS: &[&str] = &[
    ".7z",
    ".arrow",
    ".bin",
    ".bz2",
    ".ckpt",
    ".ftz",
    ".gguf",
    ".gz",
    ".h5",
    ".joblib",
    ".mlmodel",
    ".model",
    ".msgpack",
    ".npy",
    ".npz",
    ".onnx",
    ".ot",
    ".parquet",
    ".pb",
    ".pickle",
    ".pkl",
    ".pt",
    ".pth",
    ".rar",
    ".safetensors",
    ".tar",
    ".tflite",
    ".tgz",
    ".wasm",
    ".xz",
    ".zip",
    ".zst",
];

/// Whether a file counts as large: by the attributes that every new model repository starts
/// with, or by its size. A repository's own `.gitattributes` is not consulted.
pub(crate) fn is_large_file(path: &str, size: u64) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    size > LARGE_FILE_BYTES
        || LARGE_FILE_ENDINGS.iter().any(|ending| name.ends_with(ending))
        || name.contains("tfevents")
        || name.contains(".tar.")
        || path.starts_with("saved_model/")
        || path.contains("/saved_model/")
}

/// Computes the id of a blob from its bytes as they come by.
pub(crate) struct BlobHasher(Sha1);

impl BlobHasher {
    /// A hasher for a blob of exactly `size` bytes: git hashes the length before the bytes.
    pub(crate) fn new(size: u64) -> BlobHasher {
        BlobHasher(Sha1::new_with_prefix(format!("blob {size}\0")))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> GitId {
        GitId::from_bytes(self.0.finalize().into())
    }
}

/// The text that git keeps in place of a large file.
pub(crate) fn large_file_pointer(sha256: &Sha256, size: u64) -> String {
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n")
}

/// The id of the pointer of a large file.
pub(crate) fn pointer_id(sha256: &Sha256, size: u64) -> GitId {
    let pointer = large_file_pointer(sha256, size);
    let mut hasher = BlobHasher::new(pointer.len() as u64);
    hasher.update(pointer.as_bytes());
    hasher.finish()
}

/// The ids of all directories of a commit by path, the root under the empty path.
///
/// Files are taken as not executable, as the hub stores them.
pub(crate) fn tree_ids(files: &BTreeMap<String, ModelFile>) -> BTreeMap<String, GitId> {
    let mut directories: BTreeMap<&str, BTreeMap<&str, Node>> = BTreeMap::new();
    directories.entry("").or_default();
    for (path, file) in files {
        let mut below = path.as_str();
        let mut node = Node::Blob(file.git_id);
        loop {
            let (parent, name) = below.rsplit_once('/').unwrap_or(("", below));
            directories.entry(parent).or_default().insert(name, node);
            if parent.is_empty() {
                break;
            }
            below = parent;
            node = Node::Tree;
        }
    }
    let mut ids: BTreeMap<String, GitId> = BTreeMap::new();
    // A directory's path is a prefix of, and so sorts before, those below it.
    for (path, entries) in directories.iter().rev() {
        let mut lines: Vec<(String, Vec<u8>)> = Vec::new();
        for (name, node) in entries {
            let (mode, key, id) = match node {
                Node::Blob(id) => ("100644", (*name).to_owned(), *id),
                Node::Tree => {
                    let child = joined(path, name);
                    let id = ids.get(&child).copied().unwrap_or(EMPTY_TREE);
                    ("40000", format!("{name}/"), id)
                }
            };
            let mut line = format!("{mode} {name}\0").into_bytes();
            line.extend_from_slice(id.as_bytes());
            lines.push((key, line));
        }
        // Git sorts a directory as if its name ended with a slash.
        lines.sort();
        let body: Vec<u8> = lines.into_iter().flat_map(|(_, line)| line).collect();
        let mut hasher = Sha1::new_with_prefix(format!("tree {}\0", body.len()));
        hasher.update(&body);
        ids.insert((*path).to_owned(), GitId::from_bytes(hasher.finalize().into()));
    }
    ids
}

const EMPTY_TREE: GitId = GitId::from_bytes([
    0x4b, 0x82, 0x5d, 0xc6, 0x42, 0xcb, 0x6e, 0xb9, 0xa0, 0x60, 0xe5, 0x4b, 0xf8, 0xd6, 0x92, 0x88, 0xfb,
    0xee, 0x49, 0x04,
]);

enum Node {
    Blob(GitId),
    Tree,
}

/// `directory/name`, or `name` where `directory` is the root.
pub(crate) fn joined(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(bytes: &[u8]) -> GitId {
        let mut hasher = BlobHasher::new(bytes.len() as u64);
        hasher.update(bytes);
        hasher.finish()
    }

    fn small_file(bytes: &[u8]) -> ModelFile {
        ModelFile {
            size: bytes.len() as u64,
            sha256: Sha256::from_bytes([0; 32]),
            git_id: blob(bytes),
            large: false,
        }
    }

    #[test]
    fn blob_ids_are_those_of_git() {
        // `git hash-object` of an empty file and of "hello\n".
        assert_eq!(blob(b"").to_string(), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        assert_eq!(blob(b"hello\n").to_string(), "ce013625030ba8dba906f756967f9e9ca394464a");
    }

    #[test]
    fn tree_ids_are_those_of_git() {
        // `git write-tree` of these three files.
        let files = BTreeMap::from([
            ("a.txt".to_owned(), small_file(b"hello\n")),
            ("a/b/c".to_owned(), small_file(b"")),
            ("a.d/x".to_owned(), small_file(b"hello\n")),
        ]);
        let ids = tree_ids(&files);
        assert_eq!(ids.keys().map(String::as_str).collect::<Vec<_>>(), ["", "a", "a.d", "a/b"]);
        assert_eq!(ids[""].to_string(), "a04c5f39049ab29355f03d278cbc4107d3f96a6c");
        assert_eq!(ids["a"].to_string(), "3a1db7138f7726dd81339a9d6f73c0c16b8ec12a");
        assert_eq!(tree_ids(&BTreeMap::new())[""], EMPTY_TREE);
    }

    #[test]
    fn weights_are_large_files_and_texts_are_not() {
        for path in ["model.safetensors", "x/pytorch_model.bin", "a.tar.gz", "saved_model/v/x"] {
            assert!(is_large_file(path, 1), "{path}");
        }
        for path in ["config.json", "tokenizer.json", "README.md", "vocab.txt", "bin"] {
            assert!(!is_large_file(path, LARGE_FILE_BYTES), "{path}");
            assert!(is_large_file(path, LARGE_FILE_BYTES + 1), "{path}");
        }
    }
}
