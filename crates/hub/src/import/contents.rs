//! Stores the files of a directory, several at a time, and builds their tree.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use homeport_content::{FileContent, Leaf, LeafKind, Metadata, SnapshotId, Tree};
use homeport_store::{Batch, Store, StoreError};
use sha2::Digest as _;

use super::scan::{SourceFile, scan};
use super::{ImportError, ImportProgress};
use crate::git::{BlobHasher, is_large_file, pointer_id};
use crate::hash::Sha256;
use crate::record::ModelFile;

/// Hashing is the bottleneck; more threads than this find the disk busy.
const MAX_THREADS: usize = 4;

/// A tree and what is told about its files.
pub(super) type StoredFiles = (SnapshotId, BTreeMap<String, ModelFile>);

/// Puts all files below `directory` and their tree into the store, durably.
pub(super) fn store_files(
    store: &Store,
    directory: &Path,
    on_progress: &(dyn Fn(ImportProgress) + Sync),
) -> Result<StoredFiles, ImportError> {
    let sources = scan(directory)?;
    let batch = store.batch()?;
    let tally = Tally::new(&sources, on_progress);
    let stored = store_in_parallel(&batch, &sources, &tally)?;
    batch.publish()?;
    let mut tree = Tree::default();
    let mut files = BTreeMap::new();
    for (source, (content, file)) in sources.into_iter().zip(stored) {
        let leaf = Leaf { metadata: Metadata::with_mode(0o644), kind: LeafKind::File(content) };
        let inserted = tree.insert_leaf(source.path.as_bytes(), leaf);
        inserted.map_err(|error| ImportError::Path { path: source.path.clone(), source: error })?;
        files.insert(source.path, file);
    }
    Ok((store.put_tree(&tree)?, files))
}

type StoredFile = (FileContent, ModelFile);

/// Stores all files and gives the results in the order of `sources`.
fn store_in_parallel(
    batch: &Batch<'_>,
    sources: &[SourceFile],
    tally: &Tally<'_>,
) -> Result<Vec<StoredFile>, ImportError> {
    let next = AtomicUsize::new(0);
    let results: Mutex<BTreeMap<usize, StoredFile>> = Mutex::default();
    let work = || -> Result<(), ImportError> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(source) = sources.get(number) else {
                return Ok(());
            };
            let stored = store_file(batch, source, tally);
            if stored.is_err() {
                // The others need not begin another file.
                next.store(sources.len(), Ordering::Relaxed);
            }
            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
            results.insert(number, stored?);
        }
    };
    let threads = thread::available_parallelism().map_or(1, |count| count.get());
    let threads = threads.min(MAX_THREADS).min(sources.len());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().map_err(|_| ImportError::Interrupted("a thread of it panicked".to_owned()))?
        })
    })?;
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(results.into_values().collect())
}

fn store_file(batch: &Batch<'_>, source: &SourceFile, tally: &Tally<'_>) -> Result<StoredFile, ImportError> {
    let unreadable = |error| ImportError::Read { path: source.source.clone(), source: error };
    let large = is_large_file(&source.path, source.size);
    let mut reader = HashingReader {
        file: File::open(&source.source).map_err(unreadable)?,
        sha256: sha2::Sha256::new(),
        // The id of a large file comes from its pointer, so its bytes need no SHA-1.
        blob: (!large).then(|| BlobHasher::new(source.size)),
        tally,
        size: 0,
    };
    let content = match batch.file_content(&mut reader) {
        Err(StoreError::Source(error)) => return Err(unreadable(error)),
        other => other?,
    };
    if reader.size != source.size {
        return Err(ImportError::Changed {
            path: source.source.clone(),
            expected: source.size,
            found: reader.size,
        });
    }
    let sha256 = Sha256::from_bytes(reader.sha256.finalize().into());
    let git_id = match reader.blob {
        Some(blob) => blob.finish(),
        None => pointer_id(&sha256, source.size),
    };
    tally.file_done();
    let file = ModelFile { size: source.size, sha256, git_id, large };
    Ok((content, file))
}

/// Hashes what the store reads, so that a file is read once.
struct HashingReader<'a> {
    file: File,
    sha256: sha2::Sha256,
    blob: Option<BlobHasher>,
    tally: &'a Tally<'a>,
    size: u64,
}

impl Read for HashingReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        let bytes = &buffer[..count];
        self.sha256.update(bytes);
        if let Some(blob) = &mut self.blob {
            blob.update(bytes);
        }
        self.size += count as u64;
        self.tally.bytes_done(count as u64);
        Ok(count)
    }
}

/// Adds up what the threads have done and reports it.
struct Tally<'a> {
    bytes: AtomicU64,
    bytes_total: u64,
    files: AtomicUsize,
    files_total: usize,
    on_progress: &'a (dyn Fn(ImportProgress) + Sync),
}

impl<'a> Tally<'a> {
    fn new(sources: &[SourceFile], on_progress: &'a (dyn Fn(ImportProgress) + Sync)) -> Tally<'a> {
        Tally {
            bytes: AtomicU64::new(0),
            bytes_total: sources.iter().map(|source| source.size).sum(),
            files: AtomicUsize::new(0),
            files_total: sources.len(),
            on_progress,
        }
    }

    fn bytes_done(&self, count: u64) {
        self.bytes.fetch_add(count, Ordering::Relaxed);
        self.report();
    }

    fn file_done(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
        self.report();
    }

    fn report(&self) {
        (self.on_progress)(ImportProgress {
            bytes_done: self.bytes.load(Ordering::Relaxed),
            bytes_total: self.bytes_total,
            files_done: self.files.load(Ordering::Relaxed),
            files_total: self.files_total,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changes_after_it_was_found_fails_the_import() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let source = dir.path().join("model.bin");
        std::fs::write(&source, vec![7; 1000]).unwrap();
        for size in [999, 1001] {
            let found = SourceFile { path: "model.bin".to_owned(), source: source.clone(), size };
            let tally = Tally::new(std::slice::from_ref(&found), &|_| {});
            let batch = store.batch().unwrap();
            let refused = store_file(&batch, &found, &tally).unwrap_err();
            let ImportError::Changed { expected, found, .. } = refused else {
                panic!("{refused}");
            };
            assert_eq!((expected, found), (size, 1000));
        }
    }
}
