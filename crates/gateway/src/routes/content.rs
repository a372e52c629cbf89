//! `GET /blobs/content/{digest}`: a range of an object, whole or one range of that.

use std::fs::File;
use std::sync::Arc;

use axum::extract::{OriginalUri, Path, State};
use axum::response::Response;
use homeport_content::Digest;
use homeport_store::{Store, StoreError};
use http::HeaderMap;
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::RequestError;
use super::download::{Body, answer};
use crate::blobs::BlobStore;
use crate::blobs::grant::{GrantError, Method};
use crate::contents::INLINE;

pub(super) async fn content(
    State((blobs, store)): State<(Arc<BlobStore>, Arc<Store>)>,
    Path(name): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, RequestError> {
    let terms = blobs.signer.check(Method::Get, &uri, blobs.now())?;
    if name == INLINE {
        let data = terms.data.ok_or(GrantError::BadSignature)?;
        let bytes = hex::decode(data).map_err(|_| GrantError::BadSignature)?;
        return answer(Body::Bytes(bytes.into()), &headers);
    }
    let digest: Digest = name.parse().map_err(|_| GrantError::BadSignature)?;
    let file = store.open_object(&digest).map_err(|error| match error {
        StoreError::MissingObject(_) => RequestError::NoSuchContent(digest),
        other => RequestError::Store(other),
    })?;
    let size = file.metadata()?.len();
    let start = terms.start.unwrap_or(0).min(size);
    let end = start.saturating_add(terms.length.unwrap_or(u64::MAX)).min(size);
    let end = if terms.cut.is_some() { end_of_data(&file, start, end)? } else { end };
    answer(Body::File { file, start, length: end - start }, &headers)
}

/// Where the last data before `end` ends: all that follows it is a hole.
fn end_of_data(file: &File, start: u64, end: u64) -> Result<u64, std::io::Error> {
    let (mut at, mut last) = (start, start);
    while at < end {
        let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) if data < end => data,
            Ok(_) | Err(Errno::NXIO) => break,
            // The file system knows nothing of holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(end),
            Err(errno) => return Err(errno.into()),
        };
        at = rustix::fs::seek(file, SeekFrom::Hole(data))?;
        last = at.min(end);
    }
    Ok(last)
}
