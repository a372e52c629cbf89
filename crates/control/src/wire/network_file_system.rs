//! Network file systems, which the wire calls shared volumes.

use futures::StreamExt as _;
use homeport_proto::client as pb;
use homeport_proto::record as rec;
use rustix::fs::FileType;
use std::io::Read as _;
use tonic::Status;

use super::{Answers, missing};
use crate::auth::Caller;
use crate::control::Control;
use crate::ids;
use crate::network_files::{CreateError, FileError, Found};

/// Files up to this many bytes are answered within the message, larger ones as a blob.
const IN_MESSAGE: u64 = 4 << 20;
/// Entries of one part of a listing.
const PAGE: usize = 1000;

impl Control {
    pub(super) async fn shared_volume_get_or_create(
        &self,
        caller: &Caller,
        request: pb::SharedVolumeGetOrCreateRequest,
    ) -> Result<pb::SharedVolumeGetOrCreateResponse, Status> {
        use pb::ObjectCreationType as Creation;
        let creation = request.object_creation_type();
        let environment = self.environment(&request.environment_name)?;
        let name = request.deployment_name;
        if matches!(creation, Creation::Ephemeral | Creation::AnonymousOwnedByApp) {
            let id = self.new_id(caller, "sv", b"ephemeral");
            return self.create_network_files(id, String::new(), environment).await;
        }
        if let Some(known) = self.network_files.named(&name, &environment) {
            let repeated = known.id == self.new_id(caller, "sv", name.as_bytes());
            if creation == Creation::CreateFailIfExists && !repeated {
                return Err(Status::already_exists(format!(
                    "a network file system `{name}` exists; choose another name or use that one"
                )));
            }
            return Ok(pb::SharedVolumeGetOrCreateResponse { shared_volume_id: known.id.clone() });
        }
        if creation == Creation::Unspecified {
            return Err(Status::not_found(format!(
                "there is no network file system `{name}`; make it with `modal nfs create {name}` or \
                 `create_if_missing=True`"
            )));
        }
        let id = match caller.idempotency_key {
            // The same name is the same object, whoever comes first.
            None => ids::derived("sv", &[environment.as_bytes(), name.as_bytes()]),
            Some(_) => self.new_id(caller, "sv", name.as_bytes()),
        };
        self.create_network_files(id, name, environment).await
    }

    async fn create_network_files(
        &self,
        id: String,
        name: String,
        environment: String,
    ) -> Result<pb::SharedVolumeGetOrCreateResponse, Status> {
        let created_at = self.clock.now();
        let record = rec::NetworkFileSystem { id: id.clone(), name, environment, created_at };
        self.network_files.create(record).await.map_err(|error| match error {
            CreateError::Record(error) => error.into(),
            CreateError::Directory { .. } => Status::unavailable(error.to_string()),
        })?;
        Ok(pb::SharedVolumeGetOrCreateResponse { shared_volume_id: id })
    }

    pub(super) async fn shared_volume_heartbeat(
        &self,
        _: &Caller,
        request: pb::SharedVolumeHeartbeatRequest,
    ) -> Result<(), Status> {
        self.network_files.beat(&request.shared_volume_id, self.clock.now());
        Ok(())
    }

    pub(super) async fn shared_volume_list(
        &self,
        _: &Caller,
        request: pb::SharedVolumeListRequest,
    ) -> Result<pb::SharedVolumeListResponse, Status> {
        let environment_name = self.environment(&request.environment_name)?;
        let items = self.network_files.list(&environment_name);
        let items = items.iter().map(|record| pb::SharedVolumeListItem {
            label: record.name.clone(),
            shared_volume_id: record.id.clone(),
            created_at: record.created_at,
            ..Default::default()
        });
        Ok(pb::SharedVolumeListResponse { items: items.collect(), environment_name })
    }

    pub(super) async fn shared_volume_delete(
        &self,
        _: &Caller,
        request: pb::SharedVolumeDeleteRequest,
    ) -> Result<(), Status> {
        self.network_file_system(&request.shared_volume_id)?;
        Ok(self.network_files.delete(&request.shared_volume_id).await?)
    }

    pub(super) async fn shared_volume_put_file(
        &self,
        _: &Caller,
        request: pb::SharedVolumePutFileRequest,
    ) -> Result<pb::SharedVolumePutFileResponse, Status> {
        use pb::shared_volume_put_file_request::DataOneof;
        self.network_file_system(&request.shared_volume_id)?;
        let content: Box<dyn std::io::Read + Send> = match request.data_oneof {
            Some(DataOneof::Data(data)) => Box::new(std::io::Cursor::new(data)),
            Some(DataOneof::DataBlobId(id)) => Box::new(self.open_blob(&id)?),
            // A question whether the file is there; it never is, by content.
            None => return Ok(pb::SharedVolumePutFileResponse { exists: false }),
        };
        let path = request.path;
        self.with_network_files(request.shared_volume_id, move |files| files.write(&path, content)).await?;
        Ok(pb::SharedVolumePutFileResponse { exists: true })
    }

    pub(super) async fn shared_volume_get_file(
        &self,
        _: &Caller,
        request: pb::SharedVolumeGetFileRequest,
    ) -> Result<pb::SharedVolumeGetFileResponse, Status> {
        use pb::shared_volume_get_file_response::DataOneof;
        let (blobs, path) = (std::sync::Arc::clone(&self.blobs), request.path);
        let data = self
            .with_network_files(request.shared_volume_id, move |files| {
                let (mut file, size) = files.read(&path)?;
                let failed = |source| FileError::Io { what: "read", path: path.clone(), source };
                if size <= IN_MESSAGE {
                    let mut bytes = Vec::new();
                    file.read_to_end(&mut bytes).map_err(failed)?;
                    return Ok(DataOneof::Data(bytes.into()));
                }
                let id = blobs.put_reader(&mut file).map_err(|error| failed(std::io::Error::other(error)))?;
                Ok(DataOneof::DataBlobId(id.to_string()))
            })
            .await?;
        Ok(pb::SharedVolumeGetFileResponse { data_oneof: Some(data) })
    }

    pub(super) async fn shared_volume_list_files(
        &self,
        _: &Caller,
        request: pb::SharedVolumeListFilesRequest,
    ) -> Result<pb::SharedVolumeListFilesResponse, Status> {
        let found =
            self.with_network_files(request.shared_volume_id, move |files| files.list(&request.path)).await?;
        Ok(pb::SharedVolumeListFilesResponse { entries: found.into_iter().map(entry).collect() })
    }

    pub(super) fn shared_volume_list_files_stream(
        &self,
        caller: &Caller,
        request: pb::SharedVolumeListFilesRequest,
    ) -> Result<Answers<pb::SharedVolumeListFilesResponse>, Status> {
        let (control, caller) = (self.clone(), caller.clone());
        let parts = async_stream::try_stream! {
            let all = control.shared_volume_list_files(&caller, request).await?;
            for entries in all.entries.chunks(PAGE) {
                yield pb::SharedVolumeListFilesResponse { entries: entries.to_vec() };
            }
        };
        Ok(parts.boxed())
    }

    pub(super) async fn shared_volume_remove_file(
        &self,
        _: &Caller,
        request: pb::SharedVolumeRemoveFileRequest,
    ) -> Result<(), Status> {
        let pb::SharedVolumeRemoveFileRequest { shared_volume_id, path, recursive } = request;
        self.with_network_files(shared_volume_id, move |files| files.remove(&path, recursive)).await
    }

    /// The record of a network file system, or what to say when there is none.
    pub(crate) fn network_file_system(
        &self,
        id: &str,
    ) -> Result<std::sync::Arc<rec::NetworkFileSystem>, Status> {
        self.network_files.get(id).ok_or_else(|| missing("network file system", id))
    }

    async fn with_network_files<R: Send + 'static>(
        &self,
        id: String,
        work: impl FnOnce(&crate::network_files::Directory) -> Result<R, FileError> + Send + 'static,
    ) -> Result<R, Status> {
        self.network_file_system(&id)?;
        let control = self.clone();
        tokio::task::spawn_blocking(move || work(&control.network_files.open(&id)?))
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?
            .map_err(refused)
    }
}

fn entry(found: Found) -> pb::FileEntry {
    use pb::file_entry::FileType as Kind;
    let kind = match found.kind {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        _ => Kind::Unspecified,
    };
    pb::FileEntry { path: found.path, r#type: kind.into(), mtime: found.mtime, size: found.size }
}

fn refused(error: FileError) -> Status {
    let text = error.to_string();
    match error {
        FileError::NotFound(_) => Status::not_found(text),
        FileError::Io { .. } => Status::failed_precondition(text),
        _ => Status::invalid_argument(text),
    }
}
