//! The hub's HTTP interface, as the client library uses it.
//!
//! | request | answer |
//! |---|---|
//! | `GET /api/models` | the models, by `search`, `author`, `sort` and `limit` |
//! | `GET /api/models/REPO[/revision/REV]` | a model, with `blobs` its files' sizes and hashes |
//! | `GET /api/models/REPO/refs` | branches |
//! | `GET /api/models/REPO/tree/REV[/PATH]` | files and directories, with `recursive` at any depth |
//! | `POST /api/models/REPO/paths-info/REV` | some files and directories |
//! | `HEAD`, `GET /REPO/resolve/REV/PATH` | a file, whole or a range |
//!
//! `REPO` is `ORG/NAME` or `NAME`; `REV` is a branch or commit hash, its slashes percent-encoded.
//! Listings come in one piece: the library follows links to further pages but needs none.
//! Whatever else is below `/api` is answered as not served, in the hub's own form of errors.

mod body;
mod error;
mod info;
mod query;
mod range;
mod resolve;
mod target;
mod tree;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, OriginalUri, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use homeport_store::Store;
use http::header::AUTHORIZATION;

use crate::catalog::ModelCatalog;
use error::HubError;

/// A list of paths longer than this is not a request of the library.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;

/// What the endpoint serves from. Cheap to clone.
#[derive(Clone)]
pub struct HubState {
    /// Where the contents are.
    pub store: Arc<Store>,
    /// Which models there are.
    pub catalog: Arc<dyn ModelCatalog>,
    /// How it serves.
    pub options: HubOptions,
}

/// How the hub serves.
#[derive(Clone, Default, Debug)]
pub struct HubOptions {
    /// Who may read models.
    pub read_access: ReadAccess,
}

/// Who may read models.
#[derive(Clone, Default)]
pub enum ReadAccess {
    /// Everybody who can connect, whatever token is sent along. The network decides, as it does
    /// for containers, where the connection is the identity.
    #[default]
    Anyone,
    /// Who sends a bearer token that the function accepts.
    Bearer(Arc<dyn Fn(&str) -> bool + Send + Sync>),
}

impl fmt::Debug for ReadAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReadAccess::Anyone => "Anyone",
            ReadAccess::Bearer(_) => "Bearer",
        })
    }
}

/// The routes of the hub, to be merged into the server's. They own `/api/…` and
/// `/…/resolve/…` and leave every other path alone.
pub fn router(state: HubState) -> Router {
    let mut router =
        Router::new().route("/api/models", get(info::list)).route("/api/{*rest}", any(not_served));
    for repo in ["{first}", "{first}/{second}"] {
        router = router
            .route(&format!("/api/models/{repo}"), get(info::model))
            .route(&format!("/api/models/{repo}/revision/{{revision}}"), get(info::model))
            .route(&format!("/api/models/{repo}/refs"), get(info::references))
            .route(&format!("/api/models/{repo}/tree/{{revision}}"), get(tree::list))
            .route(&format!("/api/models/{repo}/tree/{{revision}}/{{*path}}"), get(tree::list))
            .route(&format!("/api/models/{repo}/paths-info/{{revision}}"), post(tree::paths_info))
            .route(&format!("/{repo}/resolve/{{revision}}/{{*path}}"), get(resolve::file));
    }
    // Models only: the library then reports that the repository does not exist, which is true.
    for kind in ["datasets", "spaces"] {
        router = router
            .route(&format!("/api/{kind}/{{*rest}}"), any(other_kind))
            .route(&format!("/{kind}/{{first}}/{{second}}/resolve/{{*rest}}"), any(other_kind));
    }
    router
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(state.clone(), check_access))
        .with_state(state)
}

async fn not_served(OriginalUri(uri): OriginalUri) -> HubError {
    HubError::NotServed(uri.path().to_owned())
}

async fn other_kind(OriginalUri(uri): OriginalUri) -> HubError {
    HubError::RepoNotFound(uri.path().trim_start_matches("/api").to_owned())
}

async fn check_access(State(state): State<HubState>, request: Request, next: Next) -> Response {
    if let ReadAccess::Bearer(accepts) = &state.options.read_access {
        let header = request.headers().get(AUTHORIZATION);
        let token = header.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        if !token.is_some_and(|token| accepts(token)) {
            return HubError::Unauthorized.into_response();
        }
    }
    next.run(request).await
}
