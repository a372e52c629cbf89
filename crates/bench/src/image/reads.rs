//! What programs do with the files of an image, timed. All times are in seconds.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{Advice, fadvise};

use super::corpus::Corpus;
use super::mapping::{Mapping, Placement, page_size};
use crate::BenchError;
use crate::error::io_error;

const READ: usize = 1 << 20;
/// Weights are taken out of a mapping tensor by tensor.
const TENSOR: usize = 16 << 20;
/// Small files that are opened in one turn, at most.
const OPENED: usize = 20_000;

/// The files of one copy of the corpus, by path.
#[derive(Debug)]
pub(crate) struct Copy {
    root: PathBuf,
    small: Vec<(PathBuf, u64)>,
    large: Vec<(PathBuf, u64)>,
    entries: u64,
}

impl Copy {
    /// The copy below `root`, which has `entries` files and directories.
    pub(crate) fn new(root: &Path, corpus: &Corpus, entries: u64) -> Copy {
        let step = corpus.small.len().div_ceil(OPENED).max(1);
        let small = corpus.small.iter().step_by(step);
        Copy {
            root: root.to_owned(),
            small: small.map(|file| (root.join(&file.path), file.size)).collect(),
            large: corpus.large.iter().map(|file| (root.join(&file.path), file.size)).collect(),
            entries,
        }
    }

    /// Files and directories.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// Bytes of the large files.
    pub(crate) fn large_bytes(&self) -> u64 {
        self.large.iter().map(|(_, size)| size).sum()
    }

    /// Small files that one turn opens.
    pub(crate) fn opened(&self) -> u64 {
        self.small.len() as u64
    }

    /// The large files from begin to end, 1 MiB at a time.
    pub(crate) fn read_sequentially(&self) -> Result<f64, BenchError> {
        let mut buffer = vec![0; READ];
        let begin = Instant::now();
        for (path, size) in &self.large {
            read_whole(path, *size, &mut buffer)?;
        }
        Ok(begin.elapsed().as_secs_f64())
    }

    /// Loads the large files as safetensors are loaded: each is mapped, and its tensors are
    /// copied out one by one.
    pub(crate) fn load_tensors(&self) -> Result<f64, BenchError> {
        self.load_tensors_mapped(Placement::Kernel)
    }

    /// The same with mappings at multiples of 2 MiB.
    pub(crate) fn load_tensors_aligned(&self) -> Result<f64, BenchError> {
        self.load_tensors_mapped(Placement::Aligned)
    }

    fn load_tensors_mapped(&self, placement: Placement) -> Result<f64, BenchError> {
        let mut tensor = vec![0_u8; TENSOR];
        let begin = Instant::now();
        for (path, size) in &self.large {
            let mapping = Mapping::open(path, placement)?;
            let mut total = 0;
            for chunk in mapping.bytes().chunks(TENSOR) {
                tensor[..chunk.len()].copy_from_slice(chunk);
                black_box(&tensor);
                total += chunk.len() as u64;
            }
            complete(path, total, *size)?;
        }
        Ok(begin.elapsed().as_secs_f64())
    }

    /// Touches each page of the large files once through a mapping: page faults and nothing else.
    pub(crate) fn touch_pages(&self) -> Result<f64, BenchError> {
        let begin = Instant::now();
        for (path, size) in &self.large {
            let mapping = Mapping::open(path, Placement::Kernel)?;
            let bytes = mapping.bytes();
            let mut sum = 0_u8;
            for byte in bytes.iter().step_by(page_size()) {
                sum = sum.wrapping_add(*byte);
            }
            black_box(sum);
            complete(path, bytes.len() as u64, *size)?;
        }
        Ok(begin.elapsed().as_secs_f64())
    }

    /// Opens, reads and closes small files.
    pub(crate) fn read_small_files(&self) -> Result<f64, BenchError> {
        let mut buffer = vec![0; READ];
        let begin = Instant::now();
        for (path, size) in &self.small {
            read_whole(path, *size, &mut buffer)?;
        }
        Ok(begin.elapsed().as_secs_f64())
    }

    /// Lists all directories and looks at every entry.
    pub(crate) fn walk(&self) -> Result<f64, BenchError> {
        let begin = Instant::now();
        let found = walk(&self.root)?;
        let elapsed = begin.elapsed().as_secs_f64();
        if found != self.entries {
            return Err(BenchError::ShortWalk { path: self.root.clone(), found, expected: self.entries });
        }
        Ok(elapsed)
    }

    /// Takes the large files out of the page cache, as far as the kernel agrees. They must be on
    /// disk already.
    pub(crate) fn evict(&self) -> Result<(), BenchError> {
        evict(self.large.iter().map(|(path, _)| path.as_path()))
    }

    /// How much of the large files is in the page cache, from 0 to 1.
    pub(crate) fn cached_share(&self) -> Result<f64, BenchError> {
        let (mut pages, mut cached) = (0, 0);
        for (path, _) in &self.large {
            let (of_file, of_file_cached) = Mapping::open(path, Placement::Kernel)?.residency(path)?;
            pages += of_file;
            cached += of_file_cached;
        }
        Ok(cached as f64 / f64::max(pages as f64, 1.0))
    }
}

/// Takes files out of the page cache.
pub(crate) fn evict<'a>(paths: impl Iterator<Item = &'a Path>) -> Result<(), BenchError> {
    for path in paths {
        let file = File::open(path).map_err(io_error("open", path))?;
        fadvise(&file, 0, None, Advice::DontNeed).map_err(io_error("take out of the page cache", path))?;
    }
    Ok(())
}

/// Number of entries below a directory.
pub(crate) fn walk(directory: &Path) -> Result<u64, BenchError> {
    let mut found = 0;
    for entry in fs::read_dir(directory).map_err(io_error("list", directory))? {
        let entry = entry.map_err(io_error("list", directory))?;
        let path = entry.path();
        let metadata = fs::symlink_metadata(&path).map_err(io_error("look at", &path))?;
        found += 1;
        if metadata.is_dir() {
            found += walk(&path)?;
        }
    }
    Ok(found)
}

/// Opens a file, reads it through `buffer` and closes it: one read more than the content needs, as
/// programs that don't ask for the size do.
fn read_whole(path: &Path, size: u64, buffer: &mut [u8]) -> Result<(), BenchError> {
    let mut file = File::open(path).map_err(io_error("open", path))?;
    let mut total = 0;
    loop {
        match file.read(buffer).map_err(io_error("read", path))? {
            0 => break,
            read => total += read as u64,
        }
    }
    complete(path, total, size)
}

fn complete(path: &Path, found: u64, expected: u64) -> Result<(), BenchError> {
    if found == expected {
        return Ok(());
    }
    Err(BenchError::ShortRead { path: path.to_owned(), found, expected })
}
