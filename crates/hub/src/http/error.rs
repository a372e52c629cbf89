//! Errors in the hub's own form, from which the library makes its typed exceptions.
//!
//! The library looks at `X-Error-Code` first, so every "not found" is a plain 404 with a code.
//! (A public hub answers 401 for an unknown repository, so as not to tell private names.)

use axum::Json;
use axum::response::{IntoResponse, Response};
use homeport_store::StoreError;
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::json;

use crate::catalog::CatalogError;
use crate::hash::CommitHash;

pub(super) const X_REPO_COMMIT: HeaderName = HeaderName::from_static("x-repo-commit");
const X_ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");
const X_ERROR_MESSAGE: HeaderName = HeaderName::from_static("x-error-message");

/// Why a request has no better answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HubError {
    #[error(
        "no model `{0}` is here; `homeport models list` shows those that are, `homeport models import` adds one"
    )]
    RepoNotFound(String),
    #[error("model `{repo}` has no revision `{revision}`; its branches are: {branches}")]
    RevisionNotFound { repo: String, revision: String, branches: String },
    #[error("there is no `{path}` in model `{repo}` at commit {commit}")]
    EntryNotFound { repo: String, path: String, commit: CommitHash },
    #[error("Invalid credentials in Authorization header")]
    Unauthorized,
    #[error("this hub does not serve `{0}`")]
    NotServed(String),
    #[error("{0}")]
    BadRequest(String),
    #[error("the requested range is outside the file's {size} bytes")]
    RangeNotSatisfiable { size: u64, commit: CommitHash },
    #[error("the model catalog failed")]
    Catalog(#[from] CatalogError),
    #[error("the content store failed")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Internal(String),
}

impl HubError {
    fn status(&self) -> StatusCode {
        match self {
            HubError::RepoNotFound(_)
            | HubError::RevisionNotFound { .. }
            | HubError::EntryNotFound { .. } => StatusCode::NOT_FOUND,
            HubError::Unauthorized => StatusCode::UNAUTHORIZED,
            // Not 5xx that the library would retry.
            HubError::NotServed(_) => StatusCode::NOT_IMPLEMENTED,
            HubError::BadRequest(_) => StatusCode::BAD_REQUEST,
            HubError::RangeNotSatisfiable { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            HubError::Catalog(_) | HubError::Store(_) | HubError::Internal(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }

    fn code(&self) -> Option<&'static str> {
        match self {
            HubError::RepoNotFound(_) => Some("RepoNotFound"),
            HubError::RevisionNotFound { .. } => Some("RevisionNotFound"),
            HubError::EntryNotFound { .. } => Some("EntryNotFound"),
            _ => None,
        }
    }
}

impl IntoResponse for HubError {
    fn into_response(self) -> Response {
        let status = self.status();
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            let cause = std::error::Error::source(&self).map(ToString::to_string);
            tracing::error!(error = %self, cause, "hub request failed");
        }
        let message = self.to_string();
        let mut response = (status, Json(json!({ "error": message }))).into_response();
        let headers = response.headers_mut();
        headers.insert(X_ERROR_MESSAGE, header_text(&message));
        if let Some(code) = self.code() {
            headers.insert(X_ERROR_CODE, HeaderValue::from_static(code));
        }
        match self {
            // With the commit the library remembers that the file is not there.
            HubError::EntryNotFound { commit, .. } => {
                headers.insert(X_REPO_COMMIT, header_text(&commit.to_string()));
            }
            HubError::RangeNotSatisfiable { size, commit } => {
                headers.insert(X_REPO_COMMIT, header_text(&commit.to_string()));
                let whole = header_text(&format!("bytes */{size}"));
                headers.insert(http::header::CONTENT_RANGE, whole);
            }
            _ => {}
        }
        response
    }
}

/// The text as a header value: what a header cannot carry becomes `?`.
pub(super) fn header_text(text: &str) -> HeaderValue {
    let plain: String =
        text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect();
    HeaderValue::try_from(plain).unwrap_or_else(|_| HeaderValue::from_static("?"))
}
