//! What trees and deltas on disk lead to, read without the cache: it belongs to those who mount.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use homeport_content::{Delta, Digest, FileContent, Leaf, LeafKind, Tree};

use crate::clock::Time;
use crate::error::io_error;
use crate::hold::{LISTS, Root};
use crate::protocol::Ground;
use crate::{Store, StoreError};

impl Store {
    /// The objects that a tree or delta names, with their sizes; one may come more than once.
    pub(crate) fn names_in(&self, root: &Root) -> Result<Vec<(Digest, u64)>, StoreError> {
        let bytes = match root {
            Root::Object(_) => return Ok(Vec::new()),
            Root::Tree(_) | Root::Delta(_) => self.read_checked(root)?,
        };
        names_of(root, &bytes)
    }

    /// The objects that a tree or delta names; one may come more than once.
    pub fn objects_in(&self, root: &Root) -> Result<Vec<Digest>, StoreError> {
        Ok(self.names_in(root)?.into_iter().map(|(digest, _)| digest).collect())
    }

    /// The bytes of a tree or delta, which are what its name says.
    pub(crate) fn read_checked(&self, root: &Root) -> Result<Vec<u8>, StoreError> {
        let path = self.place_of(root);
        let bytes = fs::read(&path).map_err(|error| match (error.kind(), root) {
            (io::ErrorKind::NotFound, Root::Tree(id)) => StoreError::MissingTree(*id),
            (io::ErrorKind::NotFound, Root::Delta(id)) => StoreError::MissingDelta(*id),
            (io::ErrorKind::NotFound, Root::Object(digest)) => StoreError::MissingObject(*digest),
            _ => io_error("read", &path)(error),
        })?;
        let found = Digest::of(&bytes);
        if found == *root.digest() { Ok(bytes) } else { Err(StoreError::Damaged { path, found }) }
    }

    pub(crate) fn place_of(&self, root: &Root) -> PathBuf {
        match root {
            Root::Tree(id) => self.place("trees", id),
            Root::Delta(id) => self.place("deltas", id),
            Root::Object(digest) => self.place("objects", digest),
        }
    }

    /// The directories that the files of a kind are spread over.
    pub(crate) fn shards(&self, kind: &str) -> Result<Vec<PathBuf>, StoreError> {
        let dir = self.dir.join(kind);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error("list", &dir)(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(io_error("list", &dir))?;
            if entry.file_name().len() == 2 {
                found.push(entry.path());
            }
        }
        found.sort();
        Ok(found)
    }

    /// What is in a shard, in order.
    pub(crate) fn digests(&self, shard: &Path) -> Result<Vec<Digest>, StoreError> {
        let mut digests: Vec<_> =
            self.protocol.ground.list(shard)?.into_iter().map(|(digest, _)| digest).collect();
        digests.sort();
        Ok(digests)
    }

    /// All trees, deltas or objects on disk, shard by shard.
    pub(crate) fn each(
        &self,
        kind: &str,
        mut visit: impl FnMut(Digest, PathBuf) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for shard in self.shards(kind)? {
            for (digest, path) in self.protocol.ground.list(&shard)? {
                visit(digest, path)?;
            }
        }
        Ok(())
    }

    /// The trees and deltas that were stored or found since `cutoff`.
    pub(crate) fn roots_since(&self, cutoff: Time) -> Result<Vec<Root>, StoreError> {
        let mut found = Vec::new();
        for (kind, root) in LISTS {
            self.each(kind, |digest, path| {
                if self.protocol.ground.look(&path)?.is_some_and(|(time, _)| time >= cutoff) {
                    found.push(root(digest));
                }
                Ok(())
            })?;
        }
        Ok(found)
    }
}

/// The objects that an encoded tree or delta names.
pub(crate) fn names_of(root: &Root, bytes: &[u8]) -> Result<Vec<(Digest, u64)>, StoreError> {
    let undecodable = |source| StoreError::Undecodable { id: *root.digest(), source };
    let leaves = match root {
        Root::Object(_) => return Ok(Vec::new()),
        Root::Tree(_) => Tree::decode(bytes).map_err(undecodable)?.leaves,
        Root::Delta(_) => Delta::decode(bytes).map_err(undecodable)?.leaves,
    };
    Ok(leaves.iter().filter_map(object).collect())
}

fn object(leaf: &Leaf) -> Option<(Digest, u64)> {
    match &leaf.kind {
        LeafKind::File(FileContent::Object { digest, size }) => Some((*digest, *size)),
        _ => None,
    }
}
