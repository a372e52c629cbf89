//! What is served, and how failures are answered.

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use homeport_content::Digest;
use homeport_store::{Store, StoreError};
use http::StatusCode;

use crate::blobs::grant::GrantError;
use crate::blobs::multipart::CompleteError;
use crate::blobs::{BlobError, BlobStore};
use crate::metrics::Metrics;
use crate::receive::ReceiveError;

mod block;
mod content;
mod download;
mod upload;

/// The routes of this crate but one: `/blobs/…`, `/metrics`, `/healthz`.
pub fn router(blobs: Arc<BlobStore>, metrics: Metrics) -> Router {
    let blobs = Router::new()
        .route("/blobs/{id}", put(upload::single).get(download::download))
        .route("/blobs/{id}/parts/{number}", put(upload::part))
        .route("/blobs/{id}/complete", post(upload::complete))
        .route("/blobs/uploads/{upload}/{index}", put(block::block))
        .with_state(blobs);
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/metrics", get(async move || metrics.response()))
        .merge(blobs)
}

/// The route of what is in the content store, for URLs of [`BlobStore::grant_content`].
pub fn content_router(blobs: Arc<BlobStore>, store: Arc<Store>) -> Router {
    Router::new().route("/blobs/content/{digest}", get(content::content)).with_state((blobs, store))
}

/// A request on a blob that failed.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error(transparent)]
    Grant(#[from] GrantError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error(transparent)]
    Complete(#[from] CompleteError),
    #[error("Content-Length is {sent}, but {declared} bytes were declared")]
    WrongLength { sent: u64, declared: u64 },
    #[error("the body's {algorithm} is {actual}, not the declared {declared}")]
    WrongHash { algorithm: &'static str, actual: String, declared: String },
    #[error("the body is not a list of parts: {0}")]
    BadCompletion(String),
    #[error("this blob has no part {0}")]
    NoSuchPart(u64),
    #[error("the blob is complete already")]
    AlreadyComplete,
    #[error("the range lies outside the blob's {length} bytes")]
    BadRange { length: u64 },
    #[error("this upload was given up: nothing was added to it for too long; begin it again")]
    NoSuchUpload,
    #[error("the content {0} is not here any more; ask for the file again")]
    NoSuchContent(Digest),
    #[error(transparent)]
    Store(StoreError),
    #[error("cannot read or write on the disk")]
    Io(#[from] std::io::Error),
}

impl RequestError {
    fn status(&self) -> StatusCode {
        match self {
            _ if self.is_full() => StatusCode::INSUFFICIENT_STORAGE,
            RequestError::Grant(_) => StatusCode::FORBIDDEN,
            RequestError::Blob(BlobError::NotFound(_))
            | RequestError::NoSuchPart(_)
            | RequestError::NoSuchUpload
            | RequestError::NoSuchContent(_) => StatusCode::NOT_FOUND,
            RequestError::Receive(ReceiveError::TooLong { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            RequestError::Receive(ReceiveError::Superseded) | RequestError::AlreadyComplete => {
                StatusCode::CONFLICT
            }
            RequestError::Receive(ReceiveError::Stopping) => StatusCode::SERVICE_UNAVAILABLE,
            RequestError::BadRange { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            RequestError::Blob(BlobError::Io { .. })
            | RequestError::Receive(ReceiveError::Io(_))
            | RequestError::Complete(CompleteError::Io(_))
            | RequestError::Store(_)
            | RequestError::Io(_) => StatusCode::INTERNAL_SERVER_ERROR,
            RequestError::Blob(BlobError::BadId(_))
            | RequestError::Receive(_)
            | RequestError::Complete(_)
            | RequestError::WrongLength { .. }
            | RequestError::WrongHash { .. }
            | RequestError::BadCompletion(_) => StatusCode::BAD_REQUEST,
        }
    }
}

impl RequestError {
    fn is_full(&self) -> bool {
        use std::io::ErrorKind;
        let (RequestError::Io(source)
        | RequestError::Receive(ReceiveError::Io(source))
        | RequestError::Complete(CompleteError::Io(source))) = self
        else {
            return false;
        };
        matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
    }
}

impl IntoResponse for RequestError {
    fn into_response(self) -> Response {
        let status = self.status();
        if status.is_server_error() {
            tracing::error!(error = &self as &dyn std::error::Error, "a blob request failed");
        } else {
            tracing::debug!(error = %self, "a blob request was refused");
        }
        let why = std::error::Error::source(&self).map(|source| format!(": {source}")).unwrap_or_default();
        let mut response = (status, format!("error: {self}{why}\n")).into_response();
        if let RequestError::BadRange { length } = self
            && let Ok(value) = format!("bytes */{length}").parse()
        {
            response.headers_mut().insert(http::header::CONTENT_RANGE, value);
        }
        response
    }
}
