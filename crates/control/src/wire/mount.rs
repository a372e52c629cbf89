//! Mounts: files of a program, uploaded once, seen as a snapshot.

use std::sync::Arc;

use homeport_content::{Digest, FileContent, INLINE_LIMIT, Metadata, Tree};
use homeport_gateway::BlobId;
use homeport_meta::files;
use homeport_proto::client as pb;
use homeport_proto::record as rec;
use homeport_store::outboard::Outboard;
use sha2::{Digest as _, Sha256};
use tonic::Status;

use super::missing;
use crate::auth::Caller;
use crate::builds::context;
use crate::control::Control;
use crate::ids;
use crate::registry::RegistryError;

/// Under this name clients ask for the mount with their own package.
const CLIENT_MOUNT: &str = "modal-client-mount-";
/// Under this name they ask for a Python to add to an image.
const PYTHON_MOUNT: &str = "python-build-standalone.";
/// Read at a time while a file is hashed.
const HASH_BUFFER: usize = 1 << 20;

impl Control {
    pub(super) async fn mount_put_file(
        &self,
        _: &Caller,
        request: pb::MountPutFileRequest,
    ) -> Result<pb::MountPutFileResponse, Status> {
        use pb::mount_put_file_request::DataOneof;
        // Of a repeated request the blob may be gone.
        let known = self.find_file(&request.sha256_hex).await?.is_some();
        let exists = match request.data_oneof {
            Some(DataOneof::Data(data)) if !known => {
                self.keep_file(&request.sha256_hex, Box::new(std::io::Cursor::new(data))).await?;
                true
            }
            Some(DataOneof::DataBlobId(blob_id)) if !known => {
                self.keep_blob(&request.sha256_hex, &blob_id).await?;
                true
            }
            _ => known,
        };
        Ok(pb::MountPutFileResponse { exists, checked_at: Some(self.timestamp()) })
    }

    pub(super) async fn mount_batched_check_existence(
        &self,
        _: &Caller,
        request: pb::MountBatchedCheckExistenceRequest,
    ) -> Result<pb::MountBatchedCheckExistenceResponse, Status> {
        let mut missing = Vec::new();
        for sha256 in request.sha256_hex_hashes {
            if self.find_file(&sha256).await?.is_none() {
                missing.push(sha256);
            }
        }
        Ok(pb::MountBatchedCheckExistenceResponse {
            missing_sha256_hex_hashes: missing,
            checked_at: Some(self.timestamp()),
        })
    }

    pub(super) async fn mount_get_or_create(
        &self,
        caller: &Caller,
        request: pb::MountGetOrCreateRequest,
    ) -> Result<pb::MountGetOrCreateResponse, Status> {
        // Until the mount has its row.
        let _hold = self.store.hold();
        let mount = if request.deployment_name.is_empty() {
            self.mount_of_files(&request.files).await?
        } else {
            named_mount(&request.deployment_name, caller)?
        };
        let mount = self.registry.put_mount(mount).await?;
        Ok(pb::MountGetOrCreateResponse {
            mount_id: mount.id.clone(),
            handle_metadata: Some(metadata(&mount)),
        })
    }

    async fn mount_of_files(&self, entries: &[pb::MountFile]) -> Result<rec::Mount, Status> {
        let mut tree = Tree::new(Metadata::with_mode(0o755));
        for entry in entries {
            let content = self.find_file(&entry.sha256_hex).await?.ok_or_else(|| {
                Status::failed_precondition(format!("the content of {} was not uploaded", entry.filename))
            })?;
            let mode = entry.mode.filter(|mode| *mode != 0).unwrap_or(0o644) & 0o777;
            // Files of other users must be readable for whoever the container runs as.
            let leaf = context::file(mode | 0o444, content);
            context::insert(&mut tree, &entry.filename, leaf)?;
        }
        let snapshot = self.store.put_tree(&tree).map_err(storage)?.to_string();
        Ok(rec::Mount { id: ids::derived("mo", &[snapshot.as_bytes()]), snapshot, ..Default::default() })
    }

    /// The content with this SHA-256, if it was uploaded.
    pub(super) async fn find_file(&self, sha256: &str) -> Result<Option<FileContent>, Status> {
        let Some(file) = files::get(self.registry.meta(), sha256).await.map_err(database)? else {
            return Ok(None);
        };
        let digest: Digest =
            file.digest.parse().map_err(|_| Status::data_loss(format!("file {sha256} is damaged")))?;
        if !self.store.keep_object(&digest).map_err(storage)? {
            return Ok(None);
        }
        let size = u64::try_from(file.size).unwrap_or(0);
        let content = FileContent::Object { digest, size };
        if size > INLINE_LIMIT as u64 {
            return Ok(Some(content));
        }
        let bytes = self.store.read_content(&content).map_err(storage)?;
        Ok(Some(FileContent::Inline(bytes.into())))
    }

    /// Keeps content, if it is what its SHA-256 says.
    async fn keep_file(&self, sha256: &str, source: Box<dyn std::io::Read + Send>) -> Result<(), Status> {
        let _hold = self.store.hold();
        let store = Arc::clone(&self.store);
        let kept = tokio::task::spawn_blocking(move || {
            let mut hashing = Hashing { source, hash: Sha256::new() };
            let (digest, size) = store.put_reader(&mut hashing).map_err(storage)?;
            Ok::<_, Status>((digest, size, hex::encode(hashing.hash.finalize())))
        });
        let (digest, size, found) = kept.await.map_err(|error| Status::unavailable(error.to_string()))??;
        check_sha256(&found, sha256)?;
        self.note_file(found, &digest, size).await
    }

    /// Keeps what was uploaded as a blob, without copying it where blobs are on the store's file system. The blob is
    /// gone then.
    async fn keep_blob(&self, sha256: &str, blob_id: &str) -> Result<(), Status> {
        let id: BlobId = blob_id.parse().map_err(super::blob::refused)?;
        let _hold = self.store.hold();
        let (store, blobs, expected) = (Arc::clone(&self.store), Arc::clone(&self.blobs), sha256.to_owned());
        let kept = tokio::task::spawn_blocking(move || {
            let file = blobs.open_blob(&id).map_err(super::blob::refused)?;
            let (outboard, found) = hash_twice(&file).map_err(|error| unreadable(&id, &error))?;
            check_sha256(&found, &expected)?;
            let batch = store.batch().map_err(storage)?;
            let link = batch.scratch_path();
            match std::fs::hard_link(blobs.path(&id), &link) {
                Ok(()) => batch.stage_file(outboard.digest(), link).map_err(storage)?,
                Err(_) => {
                    let again = blobs.open_blob(&id).map_err(super::blob::refused)?;
                    batch.put_reader(again).map_err(storage)?;
                }
            }
            batch.publish().map_err(storage)?;
            store.keep_outboard(&outboard);
            Ok::<_, Status>((outboard.digest(), outboard.size(), found, id))
        });
        let (digest, size, found, id) =
            kept.await.map_err(|error| Status::unavailable(error.to_string()))??;
        self.note_file(found, &digest, size).await?;
        self.blobs.delete(&id).map_err(super::blob::refused)
    }

    async fn note_file(&self, sha256: String, digest: &Digest, size: u64) -> Result<(), Status> {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        let file = files::File { sha256, digest: digest.to_string(), size };
        files::put(self.registry.meta(), &file).await.map_err(database)
    }

    fn timestamp(&self) -> prost_types::Timestamp {
        let now = self.clock.now();
        prost_types::Timestamp { seconds: now as i64, nanos: (now.fract() * 1e9) as i32 }
    }
}

/// What a client holds of a mount.
pub(crate) fn metadata(mount: &rec::Mount) -> pb::MountHandleMetadata {
    let content_checksum_sha256_hex = match mount.snapshot.as_str() {
        "" => hex::encode(Sha256::digest(&mount.id)),
        snapshot => snapshot.to_owned(),
    };
    pb::MountHandleMetadata { content_checksum_sha256_hex }
}

/// Mounts that exist by name: only those with a client's package, made when a container needs them.
fn named_mount(name: &str, caller: &Caller) -> Result<rec::Mount, Status> {
    if name.starts_with(PYTHON_MOUNT) {
        return Err(Status::failed_precondition(
            "`add_python` is not supported by this Homeport, which has no standalone Python to add: use an image that \
             has a Python, or install one with `setup_dockerfile_commands=[\"RUN apt-get install …\"]`",
        ));
    }
    let version = name.strip_prefix(CLIENT_MOUNT).ok_or_else(|| missing("the published mount", name))?;
    // The name can lack what the client's own statement has, such as a build number.
    let version = if caller.client_version.is_empty() { version } else { &caller.client_version };
    Ok(rec::Mount {
        id: ids::derived("mo", &[name.as_bytes()]),
        client_version: version.to_owned(),
        ..Default::default()
    })
}

/// Both hashes of a file, beside each other: what one of them reads from the disk, the other finds in memory.
fn hash_twice(file: &std::fs::File) -> std::io::Result<(Outboard, String)> {
    std::thread::scope(|scope| {
        let sha256 = scope.spawn(|| sha256(file));
        let outboard = Outboard::of(file, &|_| Ok(()))?;
        match sha256.join() {
            Ok(found) => Ok((outboard, found?)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn sha256(file: &std::fs::File) -> std::io::Result<String> {
    let (mut hash, mut buffer, mut offset) = (Sha256::new(), vec![0; HASH_BUFFER], 0);
    loop {
        let count = match std::os::unix::fs::FileExt::read_at(file, &mut buffer, offset) {
            Ok(0) => return Ok(hex::encode(hash.finalize())),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(&buffer[..count]);
        offset += count as u64;
    }
}

fn unreadable(id: &BlobId, error: &std::io::Error) -> Status {
    Status::unavailable(format!("blob {id} cannot be read: {error}"))
}

fn check_sha256(found: &str, announced: &str) -> Result<(), Status> {
    if found == announced {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "the uploaded file has SHA-256 {found}, not {announced} as announced; upload it again"
    )))
}

struct Hashing {
    source: Box<dyn std::io::Read + Send>,
    hash: Sha256,
}

impl std::io::Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

pub(super) fn storage(error: homeport_store::StoreError) -> Status {
    use std::io::ErrorKind;
    let source = error.io().map(|source| format!(": {source}")).unwrap_or_default();
    let text = format!("the content store failed: {error}{source}");
    match error.io().map(std::io::Error::kind) {
        // No repetition helps.
        Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => Status::resource_exhausted(text),
        _ => Status::unavailable(text),
    }
}

pub(super) fn database(error: homeport_meta::QueryError) -> Status {
    RegistryError::from(error).into()
}
