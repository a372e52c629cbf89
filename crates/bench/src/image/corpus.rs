//! The files of the synthetic image: what an image with a Python environment and model weights
//! looks like. Names, sizes and bytes follow from the options alone.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use homeport_content::{Leaf, LeafKind, Metadata, SnapshotId, Tree};
use homeport_store::Store;

use crate::error::io_error;
use crate::interruption::Interruption;
use crate::{BenchError, ByteCount};

/// Share of all bytes that small files take.
const SMALL_SHARE: u64 = 4;
/// Weights come in pieces of at most about this size, as published models do.
const PIECE: u64 = 1 << 30;
const FILES_OF_A_DIRECTORY: u64 = 20;
const DIRECTORIES_OF_A_PACKAGE: u64 = 8;
/// Small files are between these sizes before they are scaled to fill their share.
const SMALL_SIZES: (f64, f64) = (100.0, 100_000.0);
const WRITE: usize = 1 << 20;

/// One file.
#[derive(Debug, Clone)]
pub(crate) struct PlannedFile {
    /// Path from the root of the image.
    pub(crate) path: String,
    /// Bytes.
    pub(crate) size: u64,
}

/// All files.
#[derive(Debug)]
pub(crate) struct Corpus {
    /// Modules of a Python environment.
    pub(crate) small: Vec<PlannedFile>,
    /// Model weights.
    pub(crate) large: Vec<PlannedFile>,
}

impl Corpus {
    /// Plans exactly so many files with exactly so many bytes together.
    pub(crate) fn plan(files: u64, bytes: u64) -> Result<Corpus, BenchError> {
        let refused = |reason| BenchError::Corpus { files, bytes: ByteCount(bytes), reason };
        let small_share = bytes / SMALL_SHARE;
        let pieces = (bytes - small_share).div_ceil(PIECE).max(2);
        if files < pieces + 10 {
            return Err(refused("there must be at least ten files beside the weights"));
        }
        if bytes < 8 << 20 {
            return Err(refused("less than 8 MiB is too little to time"));
        }
        let count = files - pieces;
        let raw: Vec<f64> = (0..count).map(raw_size).collect();
        let scale = small_share as f64 / raw.iter().sum::<f64>();
        let small: Vec<PlannedFile> = (0..count)
            .zip(raw)
            .map(|(number, raw)| PlannedFile { path: module_path(number), size: (raw * scale) as u64 })
            .collect();
        let left = bytes - small.iter().map(|file| file.size).sum::<u64>();
        let large = (0..pieces)
            .map(|piece| PlannedFile {
                path: format!("models/weights/model-{:05}-of-{pieces:05}.safetensors", piece + 1),
                size: left * (piece + 1) / pieces - left * piece / pieces,
            })
            .collect();
        Ok(Corpus { small, large })
    }

    /// Small ones first.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PlannedFile> {
        self.small.iter().chain(&self.large)
    }

    /// Bytes of the large files.
    pub(crate) fn large_bytes(&self) -> u64 {
        self.large.iter().map(|file| file.size).sum()
    }

    /// Writes all files below `root`.
    pub(crate) fn write(&self, root: &Path, interruption: &Interruption) -> Result<(), BenchError> {
        let mut buffer = vec![0; WRITE];
        let mut parent = root.to_owned();
        for (number, planned) in self.files().enumerate() {
            interruption.check()?;
            let path = root.join(&planned.path);
            if let Some(directory) = path.parent()
                && directory != parent
            {
                fs::create_dir_all(directory).map_err(io_error("make the directory", directory))?;
                parent = directory.to_owned();
            }
            let mut file = File::create(&path).map_err(io_error("create", &path))?;
            let mut noise = Noise::new(number as u64);
            let mut left = planned.size;
            while left > 0 {
                interruption.check()?;
                let length = left.min(WRITE as u64) as usize;
                noise.fill(&mut buffer[..length]);
                file.write_all(&buffer[..length]).map_err(io_error("write", &path))?;
                left -= length as u64;
            }
        }
        Ok(())
    }

    /// Makes a snapshot of the files that were written below `root`.
    pub(crate) fn import(
        &self,
        root: &Path,
        store: &Store,
        interruption: &Interruption,
    ) -> Result<SnapshotId, BenchError> {
        let batch = store.batch()?;
        let mut tree = Tree::default();
        for planned in self.files() {
            interruption.check()?;
            let path = root.join(&planned.path);
            let file = File::open(&path).map_err(io_error("open", &path))?;
            let leaf = Leaf {
                metadata: Metadata::with_mode(0o644),
                kind: LeafKind::File(batch.file_content(file)?),
            };
            tree.insert_leaf(planned.path.as_bytes(), leaf)?;
        }
        Ok(batch.publish_with_tree(&tree)?)
    }
}

fn module_path(number: u64) -> String {
    let directory = number / FILES_OF_A_DIRECTORY;
    let package = directory / DIRECTORIES_OF_A_PACKAGE;
    let part = directory % DIRECTORIES_OF_A_PACKAGE;
    let module = number % FILES_OF_A_DIRECTORY;
    let root = "usr/local/lib/python3.11/site-packages";
    match part {
        0 => format!("{root}/package_{package:04}/module_{module:02}.py"),
        _ => format!("{root}/package_{package:04}/part_{part}/module_{module:02}.py"),
    }
}

/// Sizes whose logarithms are evenly spread: many small files, few of medium size.
fn raw_size(number: u64) -> f64 {
    let (least, most) = SMALL_SIZES;
    let position = Noise::new(number ^ 0x5eed).next() as f64 / u64::MAX as f64;
    least * (most / least).powf(position)
}

/// Bytes that look random and are quick to make.
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Noise {
        let mut noise = Noise(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        noise.next();
        noise
    }

    /// A step of xorshift64*.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_plan_has_exactly_the_files_and_bytes_asked_for() {
        for (files, bytes) in [(2000, 50_000_000), (100_000, 5_000_000_000), (13, 9_000_001)] {
            let corpus = Corpus::plan(files, bytes).unwrap();
            let paths: HashSet<&str> = corpus.files().map(|file| file.path.as_str()).collect();
            assert_eq!(paths.len() as u64, files);
            assert_eq!(corpus.files().map(|file| file.size).sum::<u64>(), bytes);
            assert!(corpus.large_bytes() >= bytes / 2);
        }
    }

    #[test]
    fn plans_without_room_for_a_mix_are_refused() {
        assert!(Corpus::plan(5, 50_000_000).is_err());
        assert!(Corpus::plan(2000, 1000).is_err());
    }

    #[test]
    fn contents_differ_between_files_and_not_between_runs() {
        let bytes = |seed| {
            let mut bytes = [0; 21];
            Noise::new(seed).fill(&mut bytes);
            bytes
        };
        assert_eq!(bytes(7), bytes(7));
        assert_ne!(bytes(7), bytes(8));
        assert_ne!(bytes(7)[..8], bytes(7)[8..16]);
    }
}
