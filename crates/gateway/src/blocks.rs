//! Files that arrive in blocks of 8 MiB, each named by its SHA-256.
//!
//! ```text
//! blocks/K.data      the future file, sparse until all of its blocks are there
//! blocks/K.journal   which blocks of it arrived, see `journal`
//! ```
//! K follows from the file's size and the names of its blocks, so an upload that is begun again finds what it sent
//! before. A client leaves the zeros at a block's end out of its name and of what it sends; the file has them.
//!
//! A block lies in its final place from its first byte on: a file is complete when its last block is, without being
//! copied or read again. Its BLAKE3 follows from those of its blocks ([`tree`]).
//!
//! Nothing is synced here: blocks that an earlier run of the server received are read and hashed before they count.

mod journal;
mod place;
mod tree;
mod upload;

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use sha2::{Digest, Sha256};

use crate::blobs::WallClock;

pub use upload::{Assembled, BlockUpload, Filled};

/// Bytes of every block but a file's last.
pub const BLOCK_BYTES: u64 = 8 << 20;

/// The SHA-256 by which a client names a block.
pub type BlockName = [u8; 32];

/// A file that is to be uploaded in blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockPlan {
    size: u64,
    blocks: Vec<BlockName>,
}

/// The blocks named for a file are not as many as its size asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a file of {size} bytes has {expected} blocks, but {found} are named")]
pub struct WrongBlockCount {
    size: u64,
    expected: u64,
    found: u64,
}

impl BlockPlan {
    /// A file of `size` bytes with these blocks.
    pub fn new(size: u64, blocks: Vec<BlockName>) -> Result<BlockPlan, WrongBlockCount> {
        let (expected, found) = (size.div_ceil(BLOCK_BYTES), blocks.len() as u64);
        if expected == found {
            Ok(BlockPlan { size, blocks })
        } else {
            Err(WrongBlockCount { size, expected, found })
        }
    }

    /// Whether these are the bytes of the file, whatever the client does with zeros.
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        let is_block = |(block, name): (&[u8], &BlockName)| {
            let cut = block.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            BlockName::from(Sha256::digest(&block[..cut])) == *name
                || BlockName::from(Sha256::digest(block)) == *name
        };
        bytes.len() as u64 == self.size && bytes.chunks(BLOCK_BYTES as usize).zip(&self.blocks).all(is_block)
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The names of its blocks, in order.
    pub fn blocks(&self) -> &[BlockName] {
        &self.blocks
    }

    /// Place and length of a block in the file.
    pub fn range(&self, index: usize) -> (u64, u64) {
        let start = index as u64 * BLOCK_BYTES;
        (start, BLOCK_BYTES.min(self.size.saturating_sub(start)))
    }

    /// What the file is called here.
    pub fn key(&self) -> UploadKey {
        let mut hash = Sha256::new_with_prefix("homeport upload v1");
        hash.update(self.size.to_le_bytes());
        for block in &self.blocks {
            hash.update(block);
        }
        UploadKey(hash.finalize().into())
    }
}

/// Name of an upload: plans with one key are equal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UploadKey([u8; 32]);

impl fmt::Display for UploadKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for UploadKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl std::str::FromStr for UploadKey {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<UploadKey, hex::FromHexError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(UploadKey(bytes))
    }
}

/// Why blocks could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// The disk failed.
    #[error("cannot {operation} the upload {}", path.display())]
    Io {
        /// For example `write`.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The threads that work on it ended.
    #[error("the server is stopping")]
    Stopping,
}

pub(crate) fn io_error<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(std::io::Error) -> BlockError + 'a {
    move |source| BlockError::Io { operation, path: path.to_owned(), source }
}

/// Files that are being uploaded in blocks.
pub struct BlockStore {
    directory: PathBuf,
    clock: WallClock,
    state: Mutex<State>,
    counts: Counts,
}

#[derive(Default)]
struct State {
    uploads: HashMap<UploadKey, Arc<BlockUpload>>,
    /// Where blocks are that arrived. May name uploads that are gone.
    places: HashMap<BlockName, (UploadKey, usize)>,
}

#[derive(Default)]
struct Counts {
    received: Counter,
    received_bytes: Counter,
}

impl BlockStore {
    /// Opens the directory, which is made where it doesn't exist, and finds what was uploaded before.
    pub(crate) fn open(directory: PathBuf, clock: WallClock) -> std::io::Result<BlockStore> {
        std::fs::create_dir_all(&directory)?;
        let mut state = State::default();
        for found in journal::read_all(&directory)? {
            for (index, arrived) in &found.arrived {
                state.places.insert(arrived.name, (found.key, *index));
            }
            let upload = BlockUpload::found(&directory, &found);
            state.uploads.insert(found.key, Arc::new(upload));
        }
        Ok(BlockStore { directory, clock, state: Mutex::new(state), counts: Counts::default() })
    }

    /// The upload of this file: the one under way, or a new one. Blocks on the disk.
    pub fn begin(&self, plan: &BlockPlan) -> Result<Arc<BlockUpload>, BlockError> {
        let key = plan.key();
        let mut state = self.state();
        let upload = match state.uploads.get(&key) {
            Some(upload) => Arc::clone(upload),
            None => {
                let upload = Arc::new(BlockUpload::create(&self.directory, plan)?);
                state.uploads.insert(key, Arc::clone(&upload));
                upload
            }
        };
        upload.used((self.clock)());
        Ok(upload)
    }

    /// Takes a block out of another upload, or of another place in this one, if it is there. Blocks on the disk.
    pub fn fill_from_uploads(
        &self,
        upload: &BlockUpload,
        plan: &BlockPlan,
        index: usize,
    ) -> Result<Filled, BlockError> {
        let name = plan.blocks[index];
        let Some((source, source_index)) = self.place_of(&name) else {
            return Ok(Filled::No);
        };
        let (Some(arrived), Ok(file)) = (source.arrived(source_index), File::open(source.data())) else {
            return Ok(Filled::No);
        };
        if arrived.name != name {
            return Ok(Filled::No);
        }
        let filled = upload.fill(plan, index, &file, source_index as u64 * BLOCK_BYTES, arrived.length)?;
        Ok(filled)
    }

    /// The upload with this key.
    pub(crate) fn find(&self, key: &UploadKey) -> Option<Arc<BlockUpload>> {
        self.state().uploads.get(key).map(Arc::clone)
    }

    /// Notes that a block of an upload came from a client.
    pub(crate) fn arrived(&self, upload: &BlockUpload, index: usize, name: BlockName, length: u64) {
        upload.used((self.clock)());
        self.counts.received.inc();
        self.counts.received_bytes.inc_by(length);
        self.state().places.insert(name, (upload.key(), index));
    }

    /// Lets go of an upload and of what is left of it.
    pub fn forget(&self, upload: &Arc<BlockUpload>) -> Result<(), BlockError> {
        forget(&mut self.state(), upload)
    }

    /// Forgets uploads that nobody asked for or added to for `age`; returns how many. Blocks on the disk.
    pub fn sweep(&self, age: Duration) -> Result<u64, BlockError> {
        let now = (self.clock)();
        // Nothing is begun meanwhile, so what is old stays old.
        let mut state = self.state();
        let old =
            |upload: &&Arc<BlockUpload>| now.duration_since(upload.last_use()).is_ok_and(|rest| rest > age);
        let old: Vec<_> = state.uploads.values().filter(old).cloned().collect();
        for upload in &old {
            upload.close();
            forget(&mut state, upload)?;
        }
        Ok(old.len() as u64)
    }

    /// Bytes of files that are being uploaded, as far as they take space on the disk.
    pub fn disk_usage(&self) -> u64 {
        let uploads: Vec<_> = self.state().uploads.values().cloned().collect();
        let sizes = uploads.iter().filter_map(|upload| std::fs::metadata(upload.data()).ok());
        sizes.map(|found| std::os::unix::fs::MetadataExt::blocks(&found) * 512).sum()
    }

    /// Adds the counters of uploads to a registry.
    pub fn register_metrics(&self, registry: &mut Registry) {
        let help = "Blocks of files that clients uploaded";
        registry.register("upload_blocks", help, self.counts.received.clone());
        let help = "Bytes of the blocks of files that clients uploaded";
        registry.register("upload_block_bytes", help, self.counts.received_bytes.clone());
    }

    fn place_of(&self, name: &BlockName) -> Option<(Arc<BlockUpload>, usize)> {
        let state = self.state();
        let (key, index) = state.places.get(name)?;
        Some((Arc::clone(state.uploads.get(key)?), *index))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget(state: &mut State, upload: &Arc<BlockUpload>) -> Result<(), BlockError> {
    let key = upload.key();
    // Another upload of the same file may have begun since.
    if !state.uploads.get(&key).is_some_and(|current| Arc::ptr_eq(current, upload)) {
        return Ok(());
    }
    for (index, arrived) in upload.all_arrived() {
        if state.places.get(&arrived.name) == Some(&(key, index)) {
            state.places.remove(&arrived.name);
        }
    }
    state.uploads.remove(&key);
    upload.remove()
}

/// Modification time of an upload's journal: when it was used last.
fn modified(path: &Path) -> SystemTime {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
