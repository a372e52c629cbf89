//! Files that clients put on Volumes: whole contents in the first version of the API, blocks in the second.
//!
//! Contents come first and in any order; the request that names them makes one version with all of its files, or none.
//! In the second version that request is sent twice: the first is answered with the blocks that this server lacks, in
//! any file that it knows of. So an upload that broke goes on where it was.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use homeport_content::{FileContent, Layered, Leaf, LeafKind, Metadata, Seen};
use homeport_gateway::{BlockName, BlockPlan, UploadKey};
use homeport_meta::blocks::{self, Block};
use homeport_proto::client as pb;
use homeport_store::Hold;
use pb::volume_put_files2_response::MissingBlock;
use tonic::Status;

use super::mount::database;
use super::volume_blocks::{Coming, Job, Search, State, by_name, rows};
use super::volume_edit::refused;
use super::volume_path::{clean_file, place};
use crate::auth::Caller;
use crate::control::Control;

/// What becomes of an upload in the history.
const REASON: &str = "upload";
/// Between two looks whether another request has finished with the same file.
const PATIENCE: Duration = Duration::from_millis(100);
/// Looks until the client is asked to come again.
const LOOKS: usize = 6000;

/// A file that is to be put on a Volume.
struct NewFile {
    path: String,
    mode: u32,
    content: FileContent,
}

/// A file that is to come in blocks.
struct Wanted {
    path: String,
    mode: u32,
    key: UploadKey,
}

impl Control {
    pub(super) async fn volume_put_files(
        &self,
        caller: &Caller,
        request: pb::VolumePutFilesRequest,
    ) -> Result<(), Status> {
        let hold = self.store.hold();
        let mut files = Vec::new();
        for file in &request.files {
            let content = self.find_file(&file.sha256_hex).await?.ok_or_else(|| {
                Status::failed_precondition(format!(
                    "the content of {} is not here: it was not uploaded, or too long ago; upload it again",
                    file.filename
                ))
            })?;
            files.push(NewFile { path: clean_file(&file.filename)?, mode: mode(file.mode), content });
        }
        let keep = request.disallow_overwrite_existing_files;
        self.put_on_volume(caller, hold, request.volume_id, files, keep).await
    }

    pub(super) async fn volume_put_files2(
        &self,
        caller: &Caller,
        request: pb::VolumePutFiles2Request,
    ) -> Result<pb::VolumePutFiles2Response, Status> {
        let (control, caller) = (self.clone(), caller.clone());
        // What is put together for a client that goes away is there when it comes back.
        let work = tokio::spawn(async move { control.put_files_of_blocks(&caller, request).await });
        work.await.map_err(|error| Status::unavailable(error.to_string()))?
    }

    async fn put_files_of_blocks(
        &self,
        caller: &Caller,
        request: pb::VolumePutFiles2Request,
    ) -> Result<pb::VolumePutFiles2Response, Status> {
        if self.was_edited(caller, REASON).await? {
            return Ok(pb::VolumePutFiles2Response::default());
        }
        let hold = self.store.hold();
        let keep = request.disallow_overwrite_existing_files;
        let layered = self.volumes.layered(&request.volume_id).await?;
        let mut wanted = Vec::new();
        let mut jobs = BTreeMap::new();
        for file in &request.files {
            let (path, plan) = (clean_file(&file.path)?, plan(file)?);
            let existing = check_place(&layered, &path, keep)?.1;
            let key = plan.key();
            jobs.entry(key).or_insert(Job { plan, existing });
            wanted.push(Wanted { path, mode: mode(file.mode), key });
        }
        let jobs = Arc::new(jobs);
        for _ in 0..LOOKS {
            let states = self.look_for_blocks(&jobs).await?;
            let (missing, bytes) = self.missing_blocks(caller, &request.files, &wanted, &jobs, &states);
            if !missing.is_empty() {
                self.refuse_without_room(bytes)?;
                return Ok(pb::VolumePutFiles2Response { missing_blocks: missing });
            }
            let Some(contents) = self.put_together(&jobs, states).await? else {
                // Another request has it in its hands; then it is known.
                tokio::time::sleep(PATIENCE).await;
                continue;
            };
            let files = wanted.into_iter().filter_map(|Wanted { path, mode, key }| {
                Some(NewFile { path, mode, content: contents.get(&key)?.clone() })
            });
            let files = files.collect();
            self.put_on_volume(caller, hold, request.volume_id, files, keep).await?;
            return Ok(pb::VolumePutFiles2Response::default());
        }
        Err(Status::unavailable("the same files are being uploaded by somebody else; try again"))
    }

    /// Makes a version with these files.
    async fn put_on_volume(
        &self,
        caller: &Caller,
        hold: Hold,
        volume_id: String,
        files: Vec<NewFile>,
        keep: bool,
    ) -> Result<(), Status> {
        let mtime = self.mtime();
        self.edit_volume(caller, hold, volume_id, REASON, move |layered, edit| {
            for file in files {
                let (at, _) = check_place(layered, &file.path, keep)?;
                let metadata = Metadata { mtime, ..Metadata::with_mode(file.mode) };
                let leaf = Leaf { metadata, kind: LeafKind::File(file.content) };
                edit.put_leaf(&at, leaf).map_err(refused)?;
            }
            Ok(())
        })
        .await
    }

    /// How far each content is, after everything was used that this server has.
    async fn look_for_blocks(
        &self,
        jobs: &Arc<BTreeMap<UploadKey, Job>>,
    ) -> Result<BTreeMap<UploadKey, State>, Status> {
        let meta = self.registry.meta();
        let keys: Vec<String> = jobs.keys().map(UploadKey::to_string).collect();
        let whole = by_name(blocks::get_all(meta, &keys).await.map_err(database)?);
        let parts: HashSet<String> = jobs
            .iter()
            .filter(|(key, job)| job.plan.blocks().len() > 1 && !whole.contains_key(&key.to_string()))
            .flat_map(|(_, job)| job.plan.blocks().iter().map(hex::encode))
            .collect();
        let parts: Vec<String> = parts.into_iter().collect();
        let parts = by_name(blocks::get_all(meta, &parts).await.map_err(database)?);
        let used: Vec<String> = whole.keys().chain(parts.keys()).cloned().collect();
        blocks::touch(meta, &used, self.milliseconds()).await.map_err(database)?;

        let (store, blobs, jobs) = (Arc::clone(&self.store), Arc::clone(&self.blobs), Arc::clone(jobs));
        let looked = tokio::task::spawn_blocking(move || {
            let search = Search { store: &store, blobs: &blobs, whole, parts };
            jobs.iter().map(|(key, job)| Ok((*key, search.look(key, job)?))).collect()
        });
        looked.await.map_err(|error| Status::unavailable(error.to_string()))?
    }

    /// What the client has to send: each block once, however often it occurs.
    fn missing_blocks(
        &self,
        caller: &Caller,
        files: &[pb::volume_put_files2_request::File],
        wanted: &[Wanted],
        jobs: &BTreeMap<UploadKey, Job>,
        states: &BTreeMap<UploadKey, State>,
    ) -> (Vec<MissingBlock>, u64) {
        let base_url = super::blob::base_url(caller);
        let mut asked = HashSet::new();
        let (mut missing_blocks, mut bytes) = (Vec::new(), 0);
        for (file_index, Wanted { key, .. }) in (0..files.len() as u64).zip(wanted) {
            let (Some(Job { plan, .. }), Some(State::Coming { missing, .. })) =
                (jobs.get(key), states.get(key))
            else {
                continue;
            };
            for &index in missing {
                let name = &plan.blocks()[index];
                if asked.insert(*name) {
                    let length = plan.range(index).1;
                    bytes += length;
                    let put_url = self.blobs.block_url(key, index, name, length, &base_url);
                    missing_blocks.push(MissingBlock { file_index, block_index: index as u64, put_url });
                }
            }
        }
        (missing_blocks, bytes)
    }

    /// A client tries each block again for minutes before it tells its user that the disk is full. Better to know first.
    fn refuse_without_room(&self, bytes: u64) -> Result<(), Status> {
        let Some(free) = self.free_bytes().filter(|free| *free < bytes) else { return Ok(()) };
        Err(Status::resource_exhausted(format!(
            "no space left on the server's disk: {bytes} bytes are still to come and {free} are free; \
             `homeport du` says where the space goes"
        )))
    }

    /// The contents of files whose blocks are all here, in the store. None if somebody else has one in his hands.
    async fn put_together(
        &self,
        jobs: &Arc<BTreeMap<UploadKey, Job>>,
        states: BTreeMap<UploadKey, State>,
    ) -> Result<Option<HashMap<UploadKey, FileContent>>, Status> {
        let mut contents = HashMap::new();
        let mut coming = Coming { blobs: Arc::clone(&self.blobs), uploads: Vec::new() };
        for (key, state) in states {
            match (state, jobs.get(&key)) {
                (State::Known(content), _) => {
                    contents.insert(key, content);
                }
                (State::Coming { upload, .. }, Some(job)) => {
                    let Some(assembled) = upload.assemble(&job.plan) else { return Ok(None) };
                    coming.uploads.push((upload, assembled));
                }
                (State::Coming { .. }, None) => {}
            }
        }
        // Before the contents are where the rows say: a row may be wrong, but what is finished must be found.
        let rows = coming.uploads.iter().filter_map(|(upload, assembled)| {
            let plan = &jobs.get(&upload.key())?.plan;
            Some(rows(plan, upload, assembled, self.milliseconds()))
        });
        let rows: Vec<Block> = rows.flatten().collect();
        blocks::put_all(self.registry.meta(), &rows).await.map_err(database)?;
        let store = Arc::clone(&self.store);
        let stored = tokio::task::spawn_blocking(move || coming.store(&store));
        contents.extend(stored.await.map_err(|error| Status::unavailable(error.to_string()))??);
        Ok(Some(contents))
    }
}

/// The plan of a file in a request.
fn plan(file: &pb::volume_put_files2_request::File) -> Result<BlockPlan, Status> {
    let names = file.blocks.iter().map(|block| BlockName::try_from(&block.contents_sha256[..]));
    let names = names.collect::<Result<Vec<_>, _>>();
    let names = names.map_err(|_| {
        Status::invalid_argument(format!(
            "a block of {} is named by something else than a SHA-256",
            file.path
        ))
    })?;
    BlockPlan::new(file.size, names)
        .map_err(|error| Status::invalid_argument(format!("{} cannot be uploaded: {error}", file.path)))
}

fn mode(mode: Option<u32>) -> u32 {
    mode.unwrap_or(0o644) & 0o7777
}

/// Where a file goes, and the content that is there now. With `keep`, nothing may be there.
fn check_place(layered: &Layered, path: &str, keep: bool) -> Result<(Vec<u8>, Option<FileContent>), Status> {
    let at = place(layered, path)?;
    let existing = match layered.get(&at) {
        Some(Seen::Directory(_)) => {
            return Err(Status::already_exists(format!(
                "`{path}` is a directory, which no file can replace"
            )));
        }
        Some(Seen::Leaf { .. }) if keep => {
            return Err(Status::already_exists(format!(
                "`{path}` exists already; upload with force=True or --force to replace it"
            )));
        }
        Some(Seen::Leaf { leaf: Leaf { kind: LeafKind::File(content), .. }, .. }) => Some(content.clone()),
        Some(Seen::Leaf { .. }) | None => None,
    };
    Ok((at, existing))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(size: u64, names: &[&[u8]]) -> pb::volume_put_files2_request::File {
        let block = |name: &&[u8]| pb::volume_put_files2_request::Block {
            contents_sha256: name.to_vec().into(),
            put_response: None,
        };
        pb::volume_put_files2_request::File {
            path: "f".into(),
            size,
            blocks: names.iter().map(block).collect(),
            mode: None,
        }
    }

    #[test]
    fn a_plan_needs_a_hash_for_each_block() {
        const BLOCK_BYTES: u64 = homeport_gateway::BLOCK_BYTES;
        let name = [7; 32];
        assert_eq!(plan(&file(BLOCK_BYTES + 1, &[&name, &name])).unwrap().blocks().len(), 2);
        assert!(plan(&file(BLOCK_BYTES + 1, &[&name])).is_err());
        assert!(plan(&file(0, &[&name])).is_err());
        assert!(plan(&file(1, &[&name[..31]])).is_err());
        assert!(plan(&file(0, &[])).is_ok());
    }
}
