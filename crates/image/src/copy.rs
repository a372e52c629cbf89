//! `COPY` on trees: no container, no file is touched, only names are put into another tree.
//!
//! The rules are Docker's. What is copied belongs to root, or to whom the request says, and keeps mode,
//! times, attributes and hard links. Directories give their contents, not themselves. Symbolic links in the destination are
//! followed as far as they lead to directories, so that a copy to `/lib/x` lands in `/usr/lib/x` where
//! `/lib` is a link; nested directories are treated alike, where Docker would fail.

mod owner;
mod pattern;
mod sources;

use std::collections::HashMap;

use homeport_content::{Directory, Entry, EntryRef, Leaf, LeafId, Metadata, PathError, Tree};
use thiserror::Error;

use crate::base::layer::LayerError;
use crate::config::join_clean;

pub use owner::{OwnerError, owner};
pub use pattern::PatternError;

/// Gives what is in an archive; none if the file is none.
pub type Unpack<'a> = &'a dyn Fn(&Leaf) -> Result<Option<Tree>, LayerError>;

/// What to copy where.
#[derive(Clone, Copy)]
pub struct CopyRequest<'a> {
    /// The image so far.
    pub base: &'a Tree,
    /// What the sources are in.
    pub context: &'a Tree,
    /// What that is, in words for messages: `the build context`.
    pub origin: &'a str,
    /// Paths or patterns in the context. They can't leave it.
    pub sources: &'a [String],
    /// Path in the image, from `workdir` unless absolute. A slash at the end makes it a directory.
    pub destination: &'a str,
    /// Absolute working directory of the image.
    pub workdir: &'a str,
    /// User and group that the copies belong to; root if not said.
    pub owner: Option<(u32, u32)>,
    /// Mode of the copies; their own if not said.
    pub mode: Option<u32>,
    /// Reads archives, which then give their contents in their place, as `ADD` does.
    pub unpack: Option<Unpack<'a>>,
}

/// Why nothing was copied.
#[derive(Debug, Error)]
pub enum CopyError {
    /// A source that isn't there.
    #[error("COPY: `{source_path}` is not in {origin}; {near}")]
    MissingSource {
        /// What was looked in, in words.
        origin: String,
        /// The source as written.
        source_path: String,
        /// What is there instead, in words.
        near: String,
    },
    /// No pattern matches anything.
    #[error("COPY: nothing in {origin} matches `{patterns}`; {near}")]
    NothingMatches {
        /// What was looked in, in words.
        origin: String,
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
    /// An archive can't be unpacked.
    #[error("ADD: the archive `{name}` can't be unpacked: {source}")]
    Archive {
        /// Its name.
        name: String,
        /// Why.
        source: LayerError,
    },
}

/// The image with the sources copied into it.
pub fn copy(request: CopyRequest<'_>) -> Result<Tree, CopyError> {
    let sources = sources::select(&request)?;
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
    let attributes = Attributes { owner: Some(request.owner.unwrap_or((0, 0))), mode: request.mode };
    let mut writer = Writer::new(request.base.clone(), request.context, attributes);
    for source in &sources {
        match source.entry {
            EntryRef::Directory(directory) => writer.contents(directory, &target)?,
            EntryRef::Leaf(id, leaf) => {
                if let Some(archive) = unpacked(&request, source, leaf)? {
                    // An archive says itself whom its files belong to.
                    let attributes = Attributes { owner: request.owner, ..attributes };
                    let image = std::mem::take(&mut writer.image);
                    let mut unpacking = Writer::new(image, &archive, attributes);
                    unpacking.contents(&archive.root, &target)?;
                    writer.image = unpacking.image;
                } else if into_directory {
                    writer.directory(&target, None)?;
                    writer.leaf(id, &below(&target, &source.name))?;
                } else {
                    writer.leaf(id, &target)?;
                }
            }
        }
    }
    Ok(writer.image)
}

fn unpacked(
    request: &CopyRequest<'_>,
    source: &sources::Source<'_>,
    leaf: &Leaf,
) -> Result<Option<Tree>, CopyError> {
    let Some(unpack) = request.unpack else { return Ok(None) };
    unpack(leaf).map_err(|error| CopyError::Archive { name: shown(&source.name), source: error })
}

/// What copies get in place of their own.
#[derive(Clone, Copy)]
struct Attributes {
    owner: Option<(u32, u32)>,
    mode: Option<u32>,
}

impl Attributes {
    fn of(self, metadata: &Metadata) -> Metadata {
        let (uid, gid) = self.owner.unwrap_or((metadata.uid, metadata.gid));
        Metadata { uid, gid, mode: self.mode.unwrap_or(metadata.mode), ..metadata.clone() }
    }
}

fn names_directory(destination: &str) -> bool {
    destination.ends_with('/') || matches!(destination.rsplit('/').next(), Some("." | ".."))
}

struct Writer<'a> {
    image: Tree,
    context: &'a Tree,
    attributes: Attributes,
    /// Numbers that leaves of the context have got in the image.
    copied: HashMap<LeafId, LeafId>,
}

impl<'a> Writer<'a> {
    fn new(image: Tree, context: &'a Tree, attributes: Attributes) -> Self {
        Self { image, context, attributes, copied: HashMap::new() }
    }

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
                        copied.metadata = self.attributes.of(&directory.metadata);
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
        match like {
            Some(like) => made.metadata = self.attributes.of(like),
            None => (made.metadata.uid, made.metadata.gid) = self.attributes.owner.unwrap_or((0, 0)),
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
        leaf.metadata = self.attributes.of(&leaf.metadata);
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
