//! `COPY` on trees: no container, no file is touched, only names are put into another tree.
//!
//! The rules are Docker's. What is copied belongs to root and keeps mode, times, attributes and hard
//! links. Directories give their contents, not themselves. Symbolic links in the destination are
//! followed as far as they lead to directories, so that a copy to `/lib/x` lands in `/usr/lib/x` where
//! `/lib` is a link; nested directories are treated alike, where Docker would fail.

mod pattern;
mod sources;

use std::collections::HashMap;

use homeport_content::{Directory, Entry, EntryRef, LeafId, Metadata, PathError, Tree};
use thiserror::Error;

use crate::config::join_clean;

pub use pattern::PatternError;

/// What to copy where.
#[derive(Clone, Copy, Debug)]
pub struct CopyRequest<'a> {
    /// The image so far.
    pub base: &'a Tree,
    /// The build context.
    pub context: &'a Tree,
    /// Paths or patterns in the context. They can't leave it.
    pub sources: &'a [String],
    /// Path in the image, from `workdir` unless absolute. A slash at the end makes it a directory.
    pub destination: &'a str,
    /// Absolute working directory of the image.
    pub workdir: &'a str,
}

/// Why nothing was copied.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CopyError {
    /// A source that isn't in the build context.
    #[error("COPY: `{source_path}` is not in the build context; {near}")]
    MissingSource {
        /// The source as written.
        source_path: String,
        /// What is there instead, in words.
        near: String,
    },
    /// No pattern matches anything.
    #[error("COPY: nothing in the build context matches `{patterns}`; {near}")]
    NothingMatches {
        /// The patterns as written.
        patterns: String,
        /// What is there instead, in words.
        near: String,
    },
    /// A pattern that isn't one.
    #[error("COPY: `{pattern}` is not a pattern: {fault}")]
    BadPattern {
        /// The pattern as written.
        pattern: String,
        /// What is wrong with it.
        fault: PatternError,
    },
    /// Several sources and a destination that is no directory.
    #[error(
        "COPY: {count} sources need a directory as destination; write `{destination}/` with a slash at the end"
    )]
    SeveralToFile {
        /// How many sources there are.
        count: usize,
        /// The destination as written.
        destination: String,
    },
    /// A directory would have to replace a file of the image.
    #[error("COPY: `/{path}` in the image is not a directory, so nothing can be copied into it")]
    NotADirectory {
        /// Path in the image, without its leading slash.
        path: String,
    },
    /// A file would have to replace a directory of the image.
    #[error("COPY: `/{path}` in the image is a directory; a file can't replace it")]
    DirectoryInTheWay {
        /// Path in the image, without its leading slash.
        path: String,
    },
    /// The destination leads in circles or can't be a path in a tree.
    #[error("COPY: the destination `{path}` can't be reached: {reason}")]
    Unreachable {
        /// Path in the image.
        path: String,
        /// Why.
        reason: String,
    },
}

/// The image with the sources copied into it.
pub fn copy(request: CopyRequest<'_>) -> Result<Tree, CopyError> {
    let sources = sources::select(request.context, request.sources)?;
    let wanted = join_clean(request.workdir, request.destination);
    let target = follow(request.base, wanted.as_bytes())?;
    let into_directory = names_directory(request.destination)
        || matches!(request.base.get(&target), Some(EntryRef::Directory(_)));
    if sources.len() > 1 && !into_directory {
        return Err(CopyError::SeveralToFile {
            count: sources.len(),
            destination: request.destination.to_owned(),
        });
    }
    let mut writer = Writer { image: request.base.clone(), context: request.context, copied: HashMap::new() };
    for source in &sources {
        match source.entry {
            EntryRef::Directory(directory) => writer.contents(directory, &target)?,
            EntryRef::Leaf(id, _) if into_directory => {
                writer.directory(&target, None)?;
                writer.leaf(id, &below(&target, &source.name))?;
            }
            EntryRef::Leaf(id, _) => writer.leaf(id, &target)?,
        }
    }
    Ok(writer.image)
}

fn names_directory(destination: &str) -> bool {
    destination.ends_with('/') || matches!(destination.rsplit('/').next(), Some("." | ".."))
}

struct Writer<'a> {
    image: Tree,
    context: &'a Tree,
    /// Numbers that leaves of the context have got in the image.
    copied: HashMap<LeafId, LeafId>,
}

impl Writer<'_> {
    /// Copies what is in `source` to `target`, which takes the source's mode if it is new.
    fn contents(&mut self, source: &Directory, target: &[u8]) -> Result<(), CopyError> {
        self.directory(target, Some(&source.metadata))?;
        for (name, entry) in &source.entries {
            let path = below(target, name);
            match entry {
                Entry::Leaf(id) => self.leaf(*id, &path)?,
                Entry::Directory(directory) => {
                    let path = follow(&self.image, &path)?;
                    self.contents(directory, &path)?;
                    if let Ok(copied) = self.image.directory_mut(&path, false) {
                        copied.metadata = as_root(&directory.metadata);
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes sure of a directory at `target`.
    fn directory(&mut self, target: &[u8], like: Option<&Metadata>) -> Result<(), CopyError> {
        match self.image.get(target) {
            Some(EntryRef::Directory(_)) => return Ok(()),
            Some(EntryRef::Leaf(..)) => {
                return Err(CopyError::NotADirectory { path: shown(target) });
            }
            None => {}
        }
        let made = self.image.directory_mut(target, true).map_err(|error| unreachable_at(target, error))?;
        if let Some(like) = like {
            made.metadata = as_root(like);
        }
        Ok(())
    }

    fn leaf(&mut self, id: LeafId, target: &[u8]) -> Result<(), CopyError> {
        if let Some(EntryRef::Directory(_)) = self.image.get(target) {
            return Err(CopyError::DirectoryInTheWay { path: shown(target) });
        }
        if let Some(copy) = self.copied.get(&id) {
            let linked = self.image.insert_link(target, *copy);
            return linked.map_err(|error| unreachable_at(target, error));
        }
        let Some(mut leaf) = self.context.leaf(id).cloned() else {
            return Ok(());
        };
        leaf.metadata = as_root(&leaf.metadata);
        let copy = self.image.insert_leaf(target, leaf).map_err(|error| unreachable_at(target, error))?;
        self.copied.insert(id, copy);
        Ok(())
    }
}

/// Where `path` leads in `tree`; the last component is followed too.
fn follow(tree: &Tree, path: &[u8]) -> Result<Vec<u8>, CopyError> {
    tree.resolve(path).ok_or_else(|| CopyError::Unreachable {
        path: String::from_utf8_lossy(path).into_owned(),
        reason: "a part of it is a file or a circle of symbolic links".to_owned(),
    })
}

fn unreachable_at(target: &[u8], error: PathError) -> CopyError {
    match error {
        PathError::NotADirectory { component, .. } => CopyError::NotADirectory { path: component },
        other => CopyError::Unreachable { path: format!("/{}", shown(target)), reason: other.to_string() },
    }
}

fn as_root(metadata: &Metadata) -> Metadata {
    Metadata { uid: 0, gid: 0, ..metadata.clone() }
}

fn below(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = directory.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
mod tests;
