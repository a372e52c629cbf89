//! Finds the files of a model in a directory, before any of them is read.
//!
//! A symbolic link to a regular file stands for that file if it leads to a place inside the
//! directory, or into `blobs` where the directory is a snapshot of the client library's own
//! cache (`…/snapshots/COMMIT` beside `…/blobs`). Any other link is refused: a directory that
//! somebody downloaded could otherwise publish files of this machine that it doesn't contain.
//! Links to directories, devices, pipes and sockets are no part of any repository and refused.
//!
//! Left out without a word: `.git` and `.cache/huggingface` at the top, which are bookkeeping of
//! git and of the client library, and directories without files, which git does not keep either.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

use super::ImportError;
use crate::git::joined;

/// Deepest nesting that is followed; real models have three or four levels.
const MAX_DEPTH: usize = 64;

/// A file of the model and where its bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceFile {
    /// Path in the repository.
    pub(crate) path: String,
    /// The file with the bytes, links followed.
    pub(crate) source: PathBuf,
    /// Its length when it was found.
    pub(crate) size: u64,
}

/// All files below `directory`, in order of their paths.
pub(crate) fn scan(directory: &Path) -> Result<Vec<SourceFile>, ImportError> {
    let root = fs::canonicalize(directory).map_err(|e| unreadable(directory, e))?;
    if !root.is_dir() {
        return Err(ImportError::NotADirectory(directory.to_owned()));
    }
    if let Some(snapshot) = only_snapshot_hint(&root) {
        return Err(ImportError::CacheRoot { directory: directory.to_owned(), snapshot });
    }
    let blobs = blobs_beside(&root);
    let mut scan = Scan { root, blobs, files: Vec::new() };
    let top = scan.root.clone();
    scan.descend(&top, "", 0)?;
    if scan.files.is_empty() {
        return Err(ImportError::Empty(directory.to_owned()));
    }
    scan.files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(scan.files)
}

struct Scan {
    root: PathBuf,
    blobs: Option<PathBuf>,
    files: Vec<SourceFile>,
}

impl Scan {
    fn descend(&mut self, directory: &Path, prefix: &str, depth: usize) -> Result<(), ImportError> {
        if depth > MAX_DEPTH {
            return Err(ImportError::TooDeep(directory.to_owned()));
        }
        for entry in fs::read_dir(directory).map_err(|e| unreadable(directory, e))? {
            let entry = entry.map_err(|e| unreadable(directory, e))?;
            let source = entry.path();
            let Ok(name) = entry.file_name().into_string() else {
                return Err(ImportError::NotUtf8(source));
            };
            if is_bookkeeping(prefix, &name) {
                continue;
            }
            let path = joined(prefix, &name);
            let kind = entry.file_type().map_err(|e| unreadable(&source, e))?;
            if kind.is_dir() {
                self.descend(&source, &path, depth + 1)?;
            } else if kind.is_file() {
                let found = entry.metadata().map_err(|e| unreadable(&source, e))?;
                self.add(path, source, &found);
            } else if kind.is_symlink() {
                self.add_link(path, source)?;
            } else {
                return Err(ImportError::NotAFile(source));
            }
        }
        Ok(())
    }

    fn add_link(&mut self, path: String, link: PathBuf) -> Result<(), ImportError> {
        let target = fs::canonicalize(&link).map_err(|e| unreadable(&link, e))?;
        let found = fs::metadata(&target).map_err(|e| unreadable(&link, e))?;
        if !found.is_file() {
            return Err(ImportError::NotAFile(link));
        }
        let in_blobs = self.blobs.as_ref().is_some_and(|blobs| target.starts_with(blobs));
        if !in_blobs && !target.starts_with(&self.root) {
            return Err(ImportError::LinkLeadsOutside { link, target });
        }
        self.add(path, target, &found);
        Ok(())
    }

    fn add(&mut self, path: String, source: PathBuf, found: &Metadata) {
        let size = found.len();
        self.files.push(SourceFile { path, source, size });
    }
}

fn is_bookkeeping(prefix: &str, name: &str) -> bool {
    match prefix {
        "" => name == ".git",
        ".cache" => name == "huggingface",
        _ => false,
    }
}

/// `blobs` of the client library's cache, where `root` is one of its snapshots.
fn blobs_beside(root: &Path) -> Option<PathBuf> {
    let snapshots = root.parent()?;
    let blobs = snapshots.parent()?.join("blobs");
    (snapshots.file_name()? == "snapshots" && blobs.is_dir()).then_some(blobs)
}

/// A snapshot to import instead, where `root` is a whole repository of the library's cache.
fn only_snapshot_hint(root: &Path) -> Option<PathBuf> {
    if !root.join("blobs").is_dir() || !root.join("refs").is_dir() {
        return None;
    }
    let snapshots = root.join("snapshots");
    let commit = fs::read_to_string(root.join("refs/main")).ok();
    let first = || fs::read_dir(&snapshots).ok()?.flatten().next().map(|entry| entry.path());
    match commit {
        Some(commit) => Some(snapshots.join(commit.trim())),
        None => first(),
    }
}

fn unreadable(path: &Path, source: std::io::Error) -> ImportError {
    ImportError::Read { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn paths(directory: &Path) -> Vec<String> {
        scan(directory).unwrap().into_iter().map(|file| file.path).collect()
    }

    #[test]
    fn bookkeeping_and_empty_directories_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        for path in [".git/HEAD", ".cache/huggingface/x", "a/b.txt", "config.json", ".gitattributes"] {
            fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            fs::write(dir.path().join(path), path).unwrap();
        }
        fs::create_dir(dir.path().join("empty")).unwrap();
        assert_eq!(paths(dir.path()), [".gitattributes", "a/b.txt", "config.json"]);
    }

    #[test]
    fn a_snapshot_of_the_librarys_cache_is_read_through_its_links() {
        let cache = tempfile::tempdir().unwrap();
        for made in ["blobs", "refs", "snapshots/c0ffee"] {
            fs::create_dir_all(cache.path().join(made)).unwrap();
        }
        fs::write(cache.path().join("blobs/1"), b"weights").unwrap();
        let snapshot = cache.path().join("snapshots/c0ffee");
        symlink("../../blobs/1", snapshot.join("model.bin")).unwrap();
        let files = scan(&snapshot).unwrap();
        assert_eq!((files[0].path.as_str(), files[0].size), ("model.bin", 7));
        let refused = scan(cache.path()).unwrap_err();
        assert!(refused.to_string().contains("snapshots/c0ffee"), "{refused}");
    }

    #[test]
    fn links_inside_are_followed_and_links_that_lead_outside_are_refused() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("model");
        fs::create_dir(&dir).unwrap();
        fs::write(parent.path().join("secret"), b"x").unwrap();
        fs::write(dir.join("a"), b"y").unwrap();
        symlink("a", dir.join("b")).unwrap();
        assert_eq!(paths(&dir), ["a", "b"]);
        symlink("../secret", dir.join("c")).unwrap();
        let refused = scan(&dir).unwrap_err();
        assert!(matches!(refused, ImportError::LinkLeadsOutside { .. }), "{refused}");
    }

    #[test]
    fn links_to_directories_pipes_and_empty_models_are_refused() {
        let parent = tempfile::tempdir().unwrap();
        assert!(matches!(scan(parent.path()).unwrap_err(), ImportError::Empty(_)));
        let dir = parent.path().join("model");
        fs::create_dir_all(dir.join("sub")).unwrap();
        symlink("sub", dir.join("link")).unwrap();
        assert!(matches!(scan(&dir).unwrap_err(), ImportError::NotAFile(_)));
        fs::remove_file(dir.join("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, dir.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .unwrap();
        assert!(matches!(scan(&dir).unwrap_err(), ImportError::NotAFile(_)));
    }
}
