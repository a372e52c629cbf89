//! Contents that come in blocks: what of them this server has, and how they get into its store.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use homeport_content::{Digest, FileContent, INLINE_LIMIT};
use homeport_gateway::{Assembled, BlobStore, BlockError, BlockPlan, BlockUpload, Filled, UploadKey};
use homeport_meta::blocks::Block;
use homeport_store::Store;
use tonic::Status;

use super::mount::storage;

/// One content that is to come in blocks, for all files that have it.
pub(super) struct Job {
    pub(super) plan: BlockPlan,
    /// What has the path of the first of them now.
    pub(super) existing: Option<FileContent>,
}

/// How far a content is.
pub(super) enum State {
    Known(FileContent),
    Coming { upload: Arc<BlockUpload>, missing: Vec<usize> },
}

pub(super) fn by_name(blocks: Vec<Block>) -> HashMap<String, Block> {
    blocks.into_iter().map(|block| (block.sha256.clone(), block)).collect()
}

/// What is to be remembered of a file that is complete.
pub(super) fn rows(plan: &BlockPlan, upload: &BlockUpload, assembled: &Assembled, now: i64) -> Vec<Block> {
    if assembled.size <= INLINE_LIMIT as u64 {
        return Vec::new();
    }
    let digest = Digest::from_bytes(assembled.digest).to_string();
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let row = |sha256: String, start, size| Block {
        sha256,
        digest: digest.clone(),
        start: number(start),
        size: number(size),
        used_at: now,
    };
    let mut rows = vec![row(upload.key().to_string(), 0, assembled.size)];
    if plan.blocks().len() > 1 {
        let blocks = plan.blocks().iter().enumerate();
        rows.extend(blocks.filter_map(|(index, name)| {
            let length = upload.length_of(index).filter(|length| *length > 0)?;
            Some(row(hex::encode(name), plan.range(index).0, length))
        }));
    }
    rows
}

/// Looks for contents and blocks on this server.
pub(super) struct Search<'a> {
    pub(super) store: &'a Store,
    pub(super) blobs: &'a BlobStore,
    /// Whole files by the names of their uploads.
    pub(super) whole: HashMap<String, Block>,
    /// Parts of files by the names of blocks.
    pub(super) parts: HashMap<String, Block>,
}

impl Search<'_> {
    pub(super) fn look(&self, key: &UploadKey, job: &Job) -> Result<State, Status> {
        let plan = &job.plan;
        if plan.size() == 0 {
            return Ok(State::Known(FileContent::Inline(Box::default())));
        }
        if let Some(block) = self.whole.get(&key.to_string())
            && let Some(digest) = self.digest(block)?
        {
            return Ok(State::Known(FileContent::Object { digest, size: plan.size() }));
        }
        if let Some(FileContent::Inline(bytes)) = &job.existing
            && plan.is_of(bytes)
        {
            return Ok(State::Known(FileContent::Inline(bytes.clone())));
        }
        let upload = self.blobs.blocks().begin(plan).map_err(blocks_failed)?;
        let mut missing = Vec::new();
        for index in upload.missing(plan).map_err(blocks_failed)? {
            if self.fill(&upload, plan, index)? == Filled::No {
                missing.push(index);
            }
        }
        if let Some(FileContent::Object { digest, size }) = &job.existing {
            self.fill_alike(&upload, plan, &mut missing, digest, *size)?;
        }
        Ok(State::Coming { upload, missing })
    }

    /// Takes a block from a finished file or from another upload.
    fn fill(&self, upload: &Arc<BlockUpload>, plan: &BlockPlan, index: usize) -> Result<Filled, Status> {
        if let Some(block) = self.parts.get(&hex::encode(plan.blocks()[index]))
            && let Some(digest) = self.digest(block)?
        {
            let file = self.store.open_object(&digest).map_err(storage)?;
            let (start, length) = (block.start.unsigned_abs(), block.size.unsigned_abs());
            let filled = upload.fill(plan, index, &file, start, length).map_err(blocks_failed)?;
            if filled == Filled::Yes {
                return Ok(filled);
            }
            tracing::warn!(object = %digest, block = block.sha256, "a block is not where it was");
        }
        self.blobs.blocks().fill_from_uploads(upload, plan, index).map_err(blocks_failed)
    }

    /// Takes blocks from the file that is replaced, where it is the same. Most files that are replaced are either much
    /// the same or quite different, so a few places say whether a look at the whole pays off.
    fn fill_alike(
        &self,
        upload: &BlockUpload,
        plan: &BlockPlan,
        missing: &mut Vec<usize>,
        digest: &Digest,
        size: u64,
    ) -> Result<(), Status> {
        let covered = |index: &&usize| {
            let (start, length) = plan.range(**index);
            start + length <= size
        };
        let candidates: Vec<usize> = missing.iter().filter(covered).copied().collect();
        let (Some(first), Some(last)) = (candidates.first(), candidates.last()) else { return Ok(()) };
        if !self.store.keep_object(digest).map_err(storage)? {
            return Ok(());
        }
        let file = self.store.open_object(digest).map_err(storage)?;
        let try_at = |indices: &mut dyn Iterator<Item = usize>| -> Result<HashSet<usize>, Status> {
            let mut filled = HashSet::new();
            for index in indices {
                if upload.fill_alike(plan, index, &file).map_err(blocks_failed)? == Filled::Yes {
                    filled.insert(index);
                }
            }
            Ok(filled)
        };
        let probes = HashSet::from([*first, candidates[candidates.len() / 2], *last]);
        let mut filled = try_at(&mut probes.iter().copied())?;
        if !filled.is_empty() {
            let rest = candidates.iter().copied().filter(|index| !probes.contains(index));
            filled.extend(try_at(&mut { rest })?);
        }
        missing.retain(|index| !filled.contains(index));
        Ok(())
    }

    /// The object that a row names, if it is here. Then it stays as long as the request's hold.
    fn digest(&self, block: &Block) -> Result<Option<Digest>, Status> {
        let Ok(digest) = block.digest.parse::<Digest>() else { return Ok(None) };
        Ok(self.store.keep_object(&digest).map_err(storage)?.then_some(digest))
    }
}

/// Complete files on their way into the store. Those that don't get there can be uploaded on.
pub(super) struct Coming {
    pub(super) blobs: Arc<BlobStore>,
    pub(super) uploads: Vec<(Arc<BlockUpload>, Assembled)>,
}

impl Coming {
    pub(super) fn store(mut self, store: &Store) -> Result<HashMap<UploadKey, FileContent>, Status> {
        let mut contents = HashMap::new();
        let batch = store.batch().map_err(storage)?;
        let device = std::fs::metadata(store.dir()).map(|found| found.dev()).map_err(io_failed)?;
        for (upload, assembled) in &self.uploads {
            let content = if assembled.size <= INLINE_LIMIT as u64 {
                FileContent::Inline(std::fs::read(&assembled.path).map_err(io_failed)?.into())
            } else {
                let digest = Digest::from_bytes(assembled.digest);
                let file = std::fs::File::open(&assembled.path).map_err(io_failed)?;
                if file.metadata().map_err(io_failed)?.dev() == device {
                    batch.stage_file(digest, assembled.path.clone()).map_err(storage)?;
                } else {
                    batch.put_reader(file).map_err(storage)?;
                }
                FileContent::Object { digest, size: assembled.size }
            };
            contents.insert(upload.key(), content);
        }
        batch.publish().map_err(storage)?;
        for (upload, _) in self.uploads.drain(..) {
            self.blobs.blocks().forget(&upload).map_err(blocks_failed)?;
        }
        Ok(contents)
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        for (upload, assembled) in &self.uploads {
            if assembled.path.exists() {
                upload.reopen();
            } else if let Err(error) = self.blobs.blocks().forget(upload) {
                tracing::warn!(%error, "what is left of an upload cannot be removed");
            }
        }
    }
}

fn blocks_failed(error: BlockError) -> Status {
    let text = with_source(&error);
    match &error {
        BlockError::Io { source, .. } if is_full(source) => Status::resource_exhausted(text),
        _ => Status::unavailable(text),
    }
}

fn io_failed(error: std::io::Error) -> Status {
    let text = format!("an upload cannot be read: {error}");
    if is_full(&error) { Status::resource_exhausted(text) } else { Status::unavailable(text) }
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

fn with_source(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
