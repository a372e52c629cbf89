//! `PUT /blobs/uploads/{upload}/{index}`: one block of a file.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{OriginalUri, Path, State};
use http::{HeaderMap, header};

use super::RequestError;
use super::upload::on_disk;
use crate::blobs::BlobStore;
use crate::blobs::grant::{GrantError, Method};
use crate::blocks::{BlockName, UploadKey};
use crate::receive::{Length, ReceiveError, drain, pour};

/// The answer's body is the block's name, which the client gives back with the list of its blocks.
pub(super) async fn block(
    State(blobs): State<Arc<BlobStore>>,
    Path((key, index)): Path<(String, usize)>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Body,
) -> Result<String, RequestError> {
    let terms = blobs.signer.check(Method::Put, &uri, blobs.now())?;
    let key: UploadKey = key.parse().map_err(|_| GrantError::BadSignature)?;
    let (limit, text) = (terms.length.unwrap_or(0), terms.sha256.ok_or(GrantError::BadSignature)?);
    let mut name = BlockName::default();
    hex::decode_to_slice(&text, &mut name).map_err(|_| GrantError::BadSignature)?;
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if declared.is_some_and(|declared: u64| declared > limit) {
        return Err(ReceiveError::TooLong { declared: limit }.into());
    }
    let upload = blobs.blocks().find(&key).ok_or(RequestError::NoSuchUpload)?;
    let begun = Arc::clone(&upload);
    let Some(sink) = on_disk(move || Ok(begun.receive(index, name)?)).await? else {
        drain(&mut body.into_data_stream()).await;
        return Ok(text);
    };
    let length = declared.map_or(Length::AtMost(limit), Length::Exactly);
    let sink = pour(body, length, sink).await?;
    // With the disk, so that a client that goes away at this moment leaves no block that nobody knows of.
    let kept = on_disk(move || {
        let kept = sink.finish()?;
        if let Ok(length) = kept {
            blobs.blocks().arrived(&upload, index, name, length);
        }
        Ok(kept)
    });
    match kept.await? {
        Ok(_) => Ok(text),
        Err(found) => {
            let actual = hex::encode(found);
            Err(RequestError::WrongHash { algorithm: "SHA-256", actual, declared: text })
        }
    }
}
