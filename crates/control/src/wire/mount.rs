//! Mounts: files of a program, uploaded once, seen as a snapshot.

use homeport_content::{Digest, FileContent, INLINE_LIMIT, Metadata, Tree};
use homeport_meta::files;
use homeport_proto::client as pb;
use homeport_proto::record as rec;
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

impl Control {
    pub(super) async fn mount_put_file(
        &self,
        _: &Caller,
        request: pb::MountPutFileRequest,
    ) -> Result<pb::MountPutFileResponse, Status> {
        let exists = match request.data_oneof {
            None => self.find_file(&request.sha256_hex).await?.is_some(),
            Some(pb::mount_put_file_request::DataOneof::Data(data)) => {
                self.keep_file(&request.sha256_hex, Box::new(std::io::Cursor::new(data))).await?;
                true
            }
            Some(pb::mount_put_file_request::DataOneof::DataBlobId(blob_id)) => {
                let file = self.open_blob(&blob_id)?;
                self.keep_file(&request.sha256_hex, Box::new(file)).await?;
                true
            }
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
        let mount = if request.deployment_name.is_empty() {
            self.mount_of_files(&request.files).await?
        } else {
            named_mount(&request.deployment_name, caller)?
        };
        let checksum = if mount.snapshot.is_empty() {
            hex::encode(Sha256::digest(&mount.id))
        } else {
            mount.snapshot.clone()
        };
        let mount = self.registry.put_mount(mount).await?;
        Ok(pb::MountGetOrCreateResponse {
            mount_id: mount.id.clone(),
            handle_metadata: Some(pb::MountHandleMetadata { content_checksum_sha256_hex: checksum }),
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
    async fn find_file(&self, sha256: &str) -> Result<Option<FileContent>, Status> {
        let Some(file) = files::get(self.registry.meta(), sha256).await.map_err(database)? else {
            return Ok(None);
        };
        let digest: Digest =
            file.digest.parse().map_err(|_| Status::data_loss(format!("file {sha256} is damaged")))?;
        if !self.store.contains(&digest) {
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
        let store = std::sync::Arc::clone(&self.store);
        let kept = tokio::task::spawn_blocking(move || {
            let mut hashing = Hashing { source, hash: Sha256::new() };
            let kept = store.put_reader(&mut hashing);
            kept.map(|(digest, size)| (digest, size, hex::encode(hashing.hash.finalize())))
        });
        let (digest, size, found) =
            kept.await.map_err(|error| Status::unavailable(error.to_string()))?.map_err(storage)?;
        if found != sha256 {
            return Err(Status::invalid_argument(format!(
                "the uploaded file has SHA-256 {found}, not {sha256} as announced; upload it again"
            )));
        }
        let file = files::File {
            sha256: found,
            digest: digest.to_string(),
            size: i64::try_from(size).unwrap_or(i64::MAX),
        };
        files::put(self.registry.meta(), &file).await.map_err(database)
    }

    fn timestamp(&self) -> prost_types::Timestamp {
        let now = self.clock.now();
        prost_types::Timestamp { seconds: now as i64, nanos: (now.fract() * 1e9) as i32 }
    }
}

/// Mounts that exist by name: only those with a client's package, made when a container needs them.
fn named_mount(name: &str, caller: &Caller) -> Result<rec::Mount, Status> {
    let version = name.strip_prefix(CLIENT_MOUNT).ok_or_else(|| missing("the published mount", name))?;
    // The name can lack what the client's own statement has, such as a build number.
    let version = if caller.client_version.is_empty() { version } else { &caller.client_version };
    Ok(rec::Mount {
        id: ids::derived("mo", &[name.as_bytes()]),
        client_version: version.to_owned(),
        ..Default::default()
    })
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

fn storage(error: homeport_store::StoreError) -> Status {
    Status::unavailable(format!("the content store failed: {error}"))
}

fn database(error: homeport_meta::QueryError) -> Status {
    RegistryError::from(error).into()
}
