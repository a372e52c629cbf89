//! Where good copies of lost content can come from.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Seek;
use std::path::{Path, PathBuf};

use crate::hold::Root;
use crate::{Store, StoreError};

/// Directories deep below a source that are looked into.
const MAX_DEPTH: usize = 32;

/// Other directories with copies: data directories, stores, or any files. Nothing is taken from
/// them that was not verified.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    stores: Vec<PathBuf>,
    /// Files of all others, by size.
    files: HashMap<u64, Vec<PathBuf>>,
}

impl Sources {
    /// Finds out what the directories are. What cannot be read is passed over: it may still be good enough.
    pub(crate) fn of(directories: &[PathBuf]) -> Sources {
        let mut sources = Sources::default();
        for directory in directories {
            let stores = [directory.join("store"), directory.clone()];
            match stores.into_iter().find(|store| store.join("objects").is_dir()) {
                Some(store) => sources.stores.push(store),
                None => sources.add_files(directory, 0),
            }
        }
        sources
    }

    fn add_files(&mut self, directory: &Path, depth: usize) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(found) if found.is_file() => {
                    self.files.entry(found.len()).or_default().push(entry.path());
                }
                Ok(found) if found.is_dir() && depth < MAX_DEPTH => self.add_files(&entry.path(), depth + 1),
                _ => {}
            }
        }
    }

    /// Puts a good copy in the place of what is missing; `size` is what it must have, if that is known.
    pub(crate) fn mend(
        &self,
        store: &Store,
        what: &Root,
        size: Option<u64>,
    ) -> Result<Option<PathBuf>, StoreError> {
        for other in &self.stores {
            let path = other.join(store.place_of(what).strip_prefix(store.dir()).unwrap_or(Path::new("")));
            if path.is_file() && put_copy(store, what, &path)? {
                return Ok(Some(path));
            }
        }
        let sized = size.and_then(|size| self.files.get(&size));
        for path in sized.into_iter().flatten() {
            if put_copy(store, what, path)? {
                return Ok(Some(path.clone()));
            }
        }
        Ok(None)
    }
}

/// Copies a file to the place of what it is said to be; `false` if it is something else.
fn put_copy(store: &Store, what: &Root, from: &Path) -> Result<bool, StoreError> {
    let Ok(mut file) = File::open(from) else {
        return Ok(false);
    };
    match what {
        Root::Object(digest) => {
            // Before anything is written: most that have its size are something else.
            if !matches!(crate::digest_file(&file), Ok((found, _)) if found == *digest) {
                return Ok(false);
            }
            if file.rewind().is_err() {
                return Ok(false);
            }
            let batch = store.batch()?;
            let staged = batch.put_reader(&file);
            match staged {
                Ok((found, _)) if found == *digest => batch.publish().map(|()| true),
                // It changes, or cannot be read twice.
                Ok(_) | Err(StoreError::Source(_)) => Ok(false),
                Err(error) => Err(error),
            }
        }
        Root::Tree(id) => match fs::read(from).map(|bytes| homeport_content::Tree::decode(&bytes)) {
            Ok(Ok(tree)) if tree.id() == *id => store.put_tree(&tree).map(|_| true),
            _ => Ok(false),
        },
        Root::Delta(id) => match fs::read(from).map(|bytes| homeport_content::Delta::decode(&bytes)) {
            Ok(Ok(delta)) if delta.id() == *id => store.put_delta(&delta).map(|_| true),
            _ => Ok(false),
        },
    }
}
