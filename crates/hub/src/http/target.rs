//! What a request's path is about: repository, revision, path in it.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;

use super::HubState;
use super::error::HubError;
use crate::record::{Commit, ModelRecord};
use crate::repo::{RepoId, RevisionName};

/// The parameters of a route, percent-decoded.
#[derive(Debug)]
pub(super) struct Target {
    repo: String,
    /// `None` where the route has none; `main` is meant.
    revision: Option<String>,
    /// Without slashes at its ends; empty where the route has none.
    pub(super) path: String,
}

impl FromRequestParts<HubState> for Target {
    type Rejection = HubError;

    async fn from_request_parts(parts: &mut Parts, state: &HubState) -> Result<Target, HubError> {
        let Path(mut values) = Path::<HashMap<String, String>>::from_request_parts(parts, state)
            .await
            .map_err(|error| HubError::BadRequest(error.body_text()))?;
        let mut take = |key: &str| values.remove(key);
        let repo = match (take("first").unwrap_or_default(), take("second")) {
            (organisation, Some(name)) => format!("{organisation}/{name}"),
            (name, None) => name,
        };
        let path = take("path").unwrap_or_default();
        Ok(Target { repo, revision: take("revision"), path: path.trim_matches('/').to_owned() })
    }
}

impl Target {
    /// The record of the repository.
    pub(super) async fn model(&self, state: &HubState) -> Result<Arc<ModelRecord>, HubError> {
        let unknown = || HubError::RepoNotFound(self.repo.clone());
        let repo: RepoId = self.repo.parse().map_err(|_| unknown())?;
        state.catalog.get(&repo).await?.ok_or_else(unknown)
    }

    /// The commit of the model that the request means.
    pub(super) fn commit<'a>(&self, model: &'a ModelRecord) -> Result<&'a Commit, HubError> {
        let revision = self.revision.as_deref().unwrap_or(RevisionName::MAIN);
        model.resolve(revision).ok_or_else(|| HubError::RevisionNotFound {
            repo: self.repo.clone(),
            revision: revision.to_owned(),
            branches: model.branches.keys().map(RevisionName::as_str).collect::<Vec<_>>().join(", "),
        })
    }

    /// The error for a path that the commit does not have.
    pub(super) fn no_entry(&self, commit: &Commit) -> HubError {
        HubError::EntryNotFound { repo: self.repo.clone(), path: self.path.clone(), commit: commit.hash }
    }
}
