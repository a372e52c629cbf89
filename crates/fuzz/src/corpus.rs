//! Inputs that are kept from one run to the next.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of inputs that are worth keeping for their outcome.
const SMALL: usize = 4096;
/// Inputs of a corpus that are kept for their outcome. More of them would only slow down every run.
const MOST: usize = 48;

/// The kept inputs of one target.
#[derive(Debug)]
pub(crate) struct Corpus {
    directory: PathBuf,
    /// Whether inputs with a new outcome are kept.
    grows: bool,
}

impl Corpus {
    /// The corpus in a directory, which needs not be there.
    pub(crate) fn open(directory: &Path) -> Corpus {
        let grows = std::env::var_os("HOMEPORT_FUZZ_KEEP").is_some();
        Corpus { directory: directory.to_owned(), grows }
    }

    /// All inputs, in the order of their names, so that a seed decides what follows.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = Vec<u8>> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths.into_iter().filter_map(|path| fs::read(path).ok())
    }

    /// Keeps an input with a new outcome, where that is wanted.
    pub(crate) fn keep(&self, input: &[u8]) {
        let full = || fs::read_dir(&self.directory).is_ok_and(|entries| entries.count() >= MOST);
        if self.grows && input.len() <= SMALL && !full() {
            self.add("found", input);
        }
    }

    /// Writes an input; the answer says where it is.
    pub(crate) fn add(&self, kind: &str, input: &[u8]) -> String {
        let digest = blake3::hash(input).to_hex();
        let path = self.directory.join(format!("{kind}-{}", &digest[..16]));
        match fs::create_dir_all(&self.directory).and_then(|()| fs::write(&path, input)) {
            Ok(()) => path.display().to_string(),
            Err(error) => format!("lost, because it could not be written ({error}): {input:02x?}"),
        }
    }
}
