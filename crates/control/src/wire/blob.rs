//! Payloads that travel by HTTP.

use homeport_gateway::{BlobError, BlobId, ContentToken, CreateError, Upload, UploadStyle};
use homeport_proto::client as pb;
use pb::blob_create_response::{UploadTypeOneof, UploadTypesOneof};
use tonic::Status;

use crate::auth::Caller;
use crate::control::Control;
use crate::dialect::{BlobAnswer, Dialect};

/// Bytes above which an upload goes in parts. Parts help where a line is slow and breaks, but clients copy all that they
/// upload once for each part before they begin.
const SINGLE_LIMIT: u64 = 4 << 30;

impl Control {
    pub(super) async fn blob_create(
        &self,
        caller: &Caller,
        request: pb::BlobCreateRequest,
    ) -> Result<pb::BlobCreateResponse, Status> {
        let length = u64::try_from(request.content_length)
            .map_err(|_| Status::invalid_argument("the length of a blob is negative"))?;
        // Clients send a body in one piece only to hosts that they know, which a home server's name
        // is not; parts go anywhere.
        let style = if is_loopback(&caller.authority) && length <= SINGLE_LIMIT {
            UploadStyle::Single
        } else {
            UploadStyle::Multipart
        };
        let ticket = self
            .blobs
            .create(length, &request.content_md5, &request.content_sha256_base64, &base_url(caller), style)
            .map_err(|error| match error {
                CreateError::TooLarge { .. } => Status::resource_exhausted(error.to_string()),
                _ => Status::invalid_argument(error.to_string()),
            })?;
        let blob_id = ticket.blob_id.to_string();
        Ok(match (Dialect::of(&caller.client_version).blob_answer, ticket.upload) {
            (BlobAnswer::Singular, Upload::Single { url }) => pb::BlobCreateResponse {
                blob_id,
                upload_type_oneof: Some(UploadTypeOneof::UploadUrl(url)),
                ..Default::default()
            },
            (BlobAnswer::Singular, upload) => pb::BlobCreateResponse {
                blob_id,
                upload_type_oneof: parts(upload).map(UploadTypeOneof::Multipart),
                ..Default::default()
            },
            (BlobAnswer::Plural, Upload::Single { url }) => pb::BlobCreateResponse {
                blob_ids: vec![blob_id],
                upload_types_oneof: Some(UploadTypesOneof::UploadUrls(pb::UploadUrlList {
                    items: vec![url],
                })),
                ..Default::default()
            },
            (BlobAnswer::Plural, upload) => pb::BlobCreateResponse {
                blob_ids: vec![blob_id],
                upload_types_oneof: Some(UploadTypesOneof::Multiparts(pb::MultiPartUploadList {
                    items: parts(upload).into_iter().collect(),
                })),
                ..Default::default()
            },
        })
    }

    pub(super) async fn blob_get(
        &self,
        caller: &Caller,
        request: pb::BlobGetRequest,
    ) -> Result<pb::BlobGetResponse, Status> {
        if ContentToken::is_one(&request.blob_id) {
            let token = self.blobs.content_token(&request.blob_id);
            let token = token.map_err(|error| Status::permission_denied(error.to_string()))?;
            return Ok(pb::BlobGetResponse { download_url: token.url(&base_url(caller)) });
        }
        let id: BlobId = request.blob_id.parse().map_err(refused)?;
        let download_url = self.blobs.download_url(&id, &base_url(caller)).map_err(refused)?;
        Ok(pb::BlobGetResponse { download_url })
    }

    pub(super) fn open_blob(&self, id: &str) -> Result<std::fs::File, Status> {
        let id: BlobId = id.parse().map_err(refused)?;
        self.blobs.open_blob(&id).map_err(refused)
    }
}

fn parts(upload: Upload) -> Option<pb::MultiPartUpload> {
    match upload {
        Upload::Single { .. } => None,
        Upload::Multipart { part_length, part_urls, completion_url } => Some(pb::MultiPartUpload {
            part_length: i64::try_from(part_length).unwrap_or(i64::MAX),
            upload_urls: part_urls,
            completion_url,
        }),
    }
}

pub(super) fn base_url(caller: &Caller) -> String {
    format!("http://{}", caller.authority)
}

/// Whether the caller reached this server by a name of the loopback interface.
fn is_loopback(authority: &str) -> bool {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host == "localhost" || host == "127.0.0.1"
}

pub(super) fn refused(error: BlobError) -> Status {
    match error {
        BlobError::BadId(_) => Status::invalid_argument(error.to_string()),
        _ => Status::not_found(error.to_string()),
    }
}
