//! One file that arrives in blocks.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::SystemTime;

use blake3::hazmat::ChainingValue;
use sha2::{Digest, Sha256};

use super::journal::{self, Arrival, Found};
use super::tree::{self, BlockHasher};
use super::{BLOCK_BYTES, BlockError, BlockName, BlockPlan, UploadKey, io_error, modified, place};
use crate::claim::{Owners, PartClaim};
use crate::receive::{ReceiveError, Sink};

/// Threads that read what an earlier run received.
const READERS: usize = 4;

/// The name of a block of zeros whose client leaves them out.
static EMPTY: LazyLock<BlockName> = LazyLock::new(|| Sha256::digest([]).into());
/// The name of a full block of zeros whose client doesn't.
static ZEROS: LazyLock<BlockName> = LazyLock::new(|| place::name_of_zeros(BLOCK_BYTES));

/// How an attempt to take a block from elsewhere on this server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// The block is in its place.
    Yes,
    /// What was thought to be the block isn't.
    No,
}

/// A file whose blocks are all there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assembled {
    /// Where it is. Nobody writes to it any more.
    pub path: PathBuf,
    /// Its BLAKE3.
    pub digest: [u8; 32],
    /// Its bytes.
    pub size: u64,
}

/// The upload of one file.
#[derive(Debug)]
pub struct BlockUpload {
    key: UploadKey,
    size: u64,
    data: PathBuf,
    journal: PathBuf,
    owners: Arc<RwLock<Owners>>,
    blocks: Mutex<BTreeMap<usize, Arrived>>,
    last_use: Mutex<SystemTime>,
}

/// A block in its place.
#[derive(Clone, Copy, Debug)]
struct Arrived {
    arrival: Arrival,
    /// Its value in the tree of the file's hash; unknown while only an earlier run vouches for it.
    value: Option<ChainingValue>,
}

impl BlockUpload {
    pub(super) fn create(directory: &Path, plan: &BlockPlan) -> Result<BlockUpload, BlockError> {
        let key = plan.key();
        let upload = BlockUpload::new(directory, key, plan.size());
        // The data first: a journal without data of its size is no upload.
        File::create(&upload.data)
            .and_then(|file| file.set_len(plan.size()))
            .map_err(io_error("create", &upload.data))?;
        journal::create(&upload.journal, plan.size()).map_err(io_error("create", &upload.journal))?;
        Ok(upload)
    }

    pub(super) fn found(directory: &Path, found: &Found) -> BlockUpload {
        let upload = BlockUpload::new(directory, found.key, found.size);
        let arrived = found.arrived.iter();
        let blocks = arrived.map(|(index, arrival)| (*index, Arrived { arrival: *arrival, value: None }));
        *upload.blocks() = blocks.collect();
        *upload.last_use.lock().unwrap_or_else(PoisonError::into_inner) = modified(&upload.journal);
        upload
    }

    fn new(directory: &Path, key: UploadKey, size: u64) -> BlockUpload {
        BlockUpload {
            key,
            size,
            data: journal::data_path(directory, &key),
            journal: journal::journal_path(directory, &key),
            owners: Arc::default(),
            blocks: Mutex::default(),
            last_use: Mutex::new(SystemTime::UNIX_EPOCH),
        }
    }

    /// The name of the upload.
    pub fn key(&self) -> UploadKey {
        self.key
    }

    /// The blocks that are not there, in order. Reads those that an earlier run received, and blocks on the disk.
    pub fn missing(&self, plan: &BlockPlan) -> Result<Vec<usize>, BlockError> {
        self.check_unchecked()?;
        let mut missing = Vec::new();
        for (index, name) in plan.blocks().iter().enumerate() {
            let there = self.blocks().get(&index).is_some_and(|arrived| arrived.arrival.name == *name);
            if !there && !self.fill_zeros(plan, index)? {
                missing.push(index);
            }
        }
        Ok(missing)
    }

    /// Takes a block from `length` bytes at `start` of a file, if that is what is there. Blocks on the disk.
    pub fn fill(
        &self,
        plan: &BlockPlan,
        index: usize,
        source: &File,
        start: u64,
        length: u64,
    ) -> Result<Filled, BlockError> {
        let (at, room) = plan.range(index);
        if length > room {
            return Ok(Filled::No);
        }
        let Some(claim) = self.claim(index) else { return Ok(Filled::No) };
        let file = self.open().map_err(io_error("open", &self.data))?;
        let filled = (|| {
            let Ok(held) = claim.hold() else { return Ok(Filled::No) };
            if !self.make_room(&file, index, &plan.blocks()[index])? {
                return Ok(Filled::Yes);
            }
            if !place::copy(source, start, &file, at, length)? {
                return Ok(Filled::No);
            }
            let content = place::examine(&file, at, room, length, self.size)?;
            if content.name != plan.blocks()[index] || !content.zeros_follow {
                return Ok(Filled::No);
            }
            self.keep(index, Arrival { name: content.name, length }, content.value)?;
            drop(held);
            Ok(Filled::Yes)
        })();
        filled.map_err(io_error("fill", &self.data))
    }

    /// Takes a block from the same place in another version of the file, if it is the same there, whatever the client
    /// does with zeros. Blocks on the disk.
    pub fn fill_alike(&self, plan: &BlockPlan, index: usize, source: &File) -> Result<Filled, BlockError> {
        let (start, room) = plan.range(index);
        let wanted = plan.blocks()[index];
        let names =
            place::names(source, start, room).map_err(io_error("compare with another file", &self.data))?;
        let length = match names {
            Some(names) if names.cut == wanted => names.length,
            Some(names) if names.whole == wanted => room,
            _ => return Ok(Filled::No),
        };
        self.fill(plan, index, source, start, length)
    }

    /// Puts an end to writing and gives the whole file out. None if a block is missing, or if the file was given out
    /// before.
    pub fn assemble(&self, plan: &BlockPlan) -> Option<Assembled> {
        let mut owners = self.owners.write().unwrap_or_else(PoisonError::into_inner);
        if owners.complete {
            return None;
        }
        let blocks = self.blocks();
        let values: Option<Vec<ChainingValue>> = plan
            .blocks()
            .iter()
            .enumerate()
            .map(|(index, name)| blocks.get(&index).filter(|arrived| arrived.arrival.name == *name)?.value)
            .collect();
        let digest = tree::root(&values?, self.size);
        owners.complete = true;
        Some(Assembled { path: self.data.clone(), digest, size: self.size })
    }

    /// Takes back that the file was given out: it could not be used.
    pub fn reopen(&self) {
        self.owners.write().unwrap_or_else(PoisonError::into_inner).complete = false;
    }

    /// Bytes of a block that is there, without the zeros that its client left out.
    pub fn length_of(&self, index: usize) -> Option<u64> {
        Some(self.blocks().get(&index)?.arrival.length)
    }

    /// The right to write a block, unless the file was given out.
    pub(crate) fn claim(&self, index: usize) -> Option<PartClaim> {
        let mut owners = self.owners.write().unwrap_or_else(PoisonError::into_inner);
        (!owners.complete).then(|| owners.claim(&self.owners, index as u64))
    }

    /// Whether a block of this name is in its place.
    pub(crate) fn has(&self, index: usize, name: &BlockName) -> bool {
        self.blocks()
            .get(&index)
            .is_some_and(|arrived| arrived.arrival.name == *name && arrived.value.is_some())
    }

    /// Begins to receive a block. None if it isn't wanted: it is there, or the file was given out.
    pub(crate) fn receive(self: &Arc<Self>, index: usize, name: BlockName) -> io::Result<Option<BlockSink>> {
        if self.has(index, &name) {
            return Ok(None);
        }
        let Some(claim) = self.claim(index) else { return Ok(None) };
        let file = self.open()?;
        let Ok(held) = claim.hold() else { return Ok(None) };
        if !self.make_room(&file, index, &name)? {
            return Ok(None);
        }
        drop(held);
        let (start, room) = self.range(index);
        Ok(Some(BlockSink {
            upload: Arc::clone(self),
            index,
            name,
            file,
            claim,
            start,
            room,
            written: 0,
            hash: Sha256::new(),
            value: BlockHasher::new(start, self.size),
        }))
    }

    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    pub(super) fn arrived(&self, index: usize) -> Option<Arrival> {
        Some(self.blocks().get(&index)?.arrival)
    }

    pub(super) fn all_arrived(&self) -> Vec<(usize, Arrival)> {
        self.blocks().iter().map(|(index, arrived)| (*index, arrived.arrival)).collect()
    }

    pub(super) fn used(&self, now: SystemTime) {
        *self.last_use.lock().unwrap_or_else(PoisonError::into_inner) = now;
        // For later runs. Whether it works matters to nobody now.
        let _ = File::options().append(true).open(&self.journal).and_then(|file| file.set_modified(now));
    }

    pub(super) fn last_use(&self) -> SystemTime {
        *self.last_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody may write from here on.
    pub(super) fn close(&self) {
        self.owners.write().unwrap_or_else(PoisonError::into_inner).complete = true;
    }

    /// Removes what is left on the disk.
    pub(super) fn remove(&self) -> Result<(), BlockError> {
        for path in [&self.journal, &self.data] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove", path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads blocks that only an earlier run vouches for; those that are not what it says are forgotten.
    fn check_unchecked(&self) -> Result<(), BlockError> {
        let blocks = self.blocks().clone();
        let unchecked: Vec<(usize, Arrival)> = blocks
            .into_iter()
            .filter(|(_, arrived)| arrived.value.is_none())
            .map(|(index, arrived)| (index, arrived.arrival))
            .collect();
        if unchecked.is_empty() {
            return Ok(());
        }
        let next = AtomicUsize::new(0);
        let check_next = || -> Result<(), BlockError> {
            while let Some((index, arrival)) = unchecked.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.check(*index, arrival).map_err(io_error("read", &self.data))?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let readers: Vec<_> =
                (0..READERS.min(unchecked.len())).map(|_| scope.spawn(check_next)).collect();
            readers.into_iter().try_for_each(|reader| reader.join().map_err(|_| BlockError::Stopping)?)
        })
    }

    fn check(&self, index: usize, arrival: &Arrival) -> io::Result<()> {
        let (start, room) = self.range(index);
        let content = place::examine(&File::open(&self.data)?, start, room, arrival.length, self.size)?;
        let mut blocks = self.blocks();
        // Who writes to the place has taken the entry away.
        let unchanged = |arrived: &Arrived| arrived.value.is_none() && arrived.arrival == *arrival;
        if !blocks.get(&index).is_some_and(unchanged) {
            return Ok(());
        }
        if content.name == arrival.name && content.zeros_follow {
            blocks.insert(index, Arrived { arrival: *arrival, value: Some(content.value) });
        } else {
            blocks.remove(&index);
        }
        Ok(())
    }

    /// Clears a block's place for who has the claim on it. False if the block is there.
    fn make_room(&self, file: &File, index: usize, name: &BlockName) -> io::Result<bool> {
        if self.has(index, name) {
            return Ok(false);
        }
        self.blocks().remove(&index);
        let (start, room) = self.range(index);
        place::clear(file, start, room)?;
        Ok(true)
    }

    fn range(&self, index: usize) -> (u64, u64) {
        let start = (index as u64).saturating_mul(BLOCK_BYTES);
        (start, BLOCK_BYTES.min(self.size.saturating_sub(start)))
    }

    /// Takes a block that is all zeros as it is.
    fn fill_zeros(&self, plan: &BlockPlan, index: usize) -> Result<bool, BlockError> {
        let (start, room) = plan.range(index);
        let name = plan.blocks()[index];
        let is_zeros = name == *EMPTY
            || if room == BLOCK_BYTES { name == *ZEROS } else { name == place::name_of_zeros(room) };
        if !is_zeros {
            return Ok(false);
        }
        let Some(claim) = self.claim(index) else { return Ok(false) };
        let filled = (|| {
            let Ok(held) = claim.hold() else { return Ok(false) };
            if !self.make_room(&self.open()?, index, &name)? {
                return Ok(true);
            }
            let mut value = BlockHasher::new(start, self.size);
            value.update_zeros(room);
            // Under either name, nothing of it was sent.
            let length = if name == *EMPTY { 0 } else { room };
            self.keep(index, Arrival { name, length }, value.finish())?;
            drop(held);
            Ok(true)
        })();
        filled.map_err(io_error("fill", &self.data))
    }

    fn keep(&self, index: usize, arrival: Arrival, value: ChainingValue) -> io::Result<()> {
        journal::append(&self.journal, index, &arrival)?;
        self.blocks().insert(index, Arrived { arrival, value: Some(value) });
        Ok(())
    }

    fn open(&self) -> io::Result<File> {
        File::options().read(true).write(true).open(&self.data)
    }

    fn blocks(&self) -> MutexGuard<'_, BTreeMap<usize, Arrived>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A block on its way into its place.
pub(crate) struct BlockSink {
    upload: Arc<BlockUpload>,
    index: usize,
    name: BlockName,
    file: File,
    claim: PartClaim,
    start: u64,
    room: u64,
    written: u64,
    hash: Sha256,
    value: BlockHasher,
}

impl BlockSink {
    /// Keeps the block if it is the one that was announced, and says its length; else says what it is. Blocks on the
    /// disk.
    pub(crate) fn finish(mut self) -> Result<Result<u64, BlockName>, ReceiveError> {
        let found: BlockName = self.hash.finalize().into();
        if found != self.name {
            return Ok(Err(found));
        }
        self.value.update_zeros(self.room - self.written);
        let held = self.claim.hold()?;
        let arrival = Arrival { name: found, length: self.written };
        self.upload.keep(self.index, arrival, self.value.finish())?;
        drop(held);
        Ok(Ok(self.written))
    }
}

impl Sink for BlockSink {
    fn write(&mut self, piece: &[u8]) -> Result<(), ReceiveError> {
        if piece.len() as u64 > self.room - self.written {
            return Err(ReceiveError::TooLong { declared: self.room });
        }
        self.hash.update(piece);
        self.value.update(piece);
        let held = self.claim.hold()?;
        self.file.write_all_at(piece, self.start + self.written)?;
        drop(held);
        self.written += piece.len() as u64;
        Ok(())
    }
}
