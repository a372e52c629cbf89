//! Models and their branches as JSON.

use axum::Json;
use axum::extract::{RawQuery, State};
use serde_json::{Map, Value, json};

use super::HubState;
use super::error::HubError;
use super::query::Query;
use super::target::Target;
use crate::git::large_file_pointer;
use crate::record::{Commit, ModelFile, ModelRecord};
use crate::repo::RevisionName;

/// `GET /api/models/REPO[/revision/REV]`
pub(super) async fn model(
    State(state): State<HubState>,
    target: Target,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, HubError> {
    let query = Query::parse(query.unwrap_or_default().as_bytes());
    let model = target.model(&state).await?;
    let commit = target.commit(&model)?;
    let mut info = describe(&model, Some(commit));
    info.insert("siblings".to_owned(), siblings(commit, query.flag("blobs")));
    let bytes: u64 = commit.files.values().map(|file| file.size).sum();
    info.insert("usedStorage".to_owned(), json!(bytes));
    only_expanded(&mut info, &query);
    Ok(Json(Value::Object(info)))
}

/// `GET /api/models`
pub(super) async fn list(
    State(state): State<HubState>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, HubError> {
    let query = Query::parse(query.unwrap_or_default().as_bytes());
    let limit = match query.first("limit").map(str::parse::<usize>) {
        None => usize::MAX,
        Some(Ok(limit)) => limit,
        Some(Err(_)) => return Err(HubError::BadRequest("`limit` is not a number".to_owned())),
    };
    let mut models = state.catalog.list().await?;
    models.retain(|model| is_asked_for(model, &query));
    // Newest first, as the hub sorts; otherwise by name.
    match query.first("sort") {
        Some("lastModified") => models.sort_by_key(|model| std::cmp::Reverse(model.last_modified)),
        Some("createdAt") => models.sort_by_key(|model| std::cmp::Reverse(model.created)),
        _ => {}
    }
    let models = models.iter().take(limit).map(|model| {
        let commit = model.resolve(RevisionName::MAIN);
        let mut info = describe(model, commit);
        if let (true, Some(commit)) = (query.flag("full"), commit) {
            info.insert("siblings".to_owned(), siblings(commit, false));
        }
        only_expanded(&mut info, &query);
        Value::Object(info)
    });
    Ok(Json(models.collect()))
}

/// `GET /api/models/REPO/refs`
pub(super) async fn references(
    State(state): State<HubState>,
    target: Target,
) -> Result<Json<Value>, HubError> {
    let model = target.model(&state).await?;
    let branches: Vec<Value> = model
        .branches
        .iter()
        .map(|(name, commit)| {
            json!({ "name": name, "ref": format!("refs/heads/{name}"), "targetCommit": commit })
        })
        .collect();
    Ok(Json(json!({ "branches": branches, "tags": [], "converts": [], "pullRequests": [] })))
}

fn is_asked_for(model: &ModelRecord, query: &Query) -> bool {
    let name = model.repo.as_str().to_lowercase();
    let author = query.first("author");
    // Models here carry no tags, so nothing passes a filter for one.
    let tagged = ["filter", "pipeline_tag"].iter().any(|key| query.first(key).is_some());
    query.all("search").all(|text| name.contains(&text.to_lowercase()))
        && author.is_none_or(|author| model.repo.organisation() == Some(author))
        && !tagged
}

fn describe(model: &ModelRecord, commit: Option<&Commit>) -> Map<String, Value> {
    let info = json!({
        "id": model.repo,
        "modelId": model.repo,
        "author": model.repo.organisation(),
        "sha": commit.map(|commit| commit.hash),
        "createdAt": timestamp(model.created),
        "lastModified": timestamp(commit.map_or(model.last_modified, |commit| commit.created)),
        "private": false,
        "gated": false,
        "disabled": false,
        "downloads": 0,
        "likes": 0,
        "tags": [],
    });
    match info {
        Value::Object(info) => info,
        _ => Map::new(),
    }
}

fn siblings(commit: &Commit, with_hashes: bool) -> Value {
    let sibling = |(path, file): (&String, &ModelFile)| {
        if !with_hashes {
            return json!({ "rfilename": path });
        }
        let mut sibling = json!({ "rfilename": path, "size": file.size, "blobId": file.git_id });
        if file.large {
            sibling["lfs"] = json!({
                "sha256": file.sha256,
                "size": file.size,
                "pointerSize": large_file_pointer(&file.sha256, file.size).len(),
            });
        }
        sibling
    };
    commit.files.iter().map(sibling).collect()
}

/// With `expand`, a model has its name and the named properties only.
fn only_expanded(info: &mut Map<String, Value>, query: &Query) {
    let wanted: Vec<&str> = query.all("expand").collect();
    if !wanted.is_empty() {
        info.retain(|key, _| key == "id" || wanted.contains(&key.as_str()));
    }
}

/// A time as the library parses it.
pub(super) fn timestamp(seconds: i64) -> String {
    chrono::DateTime::from_timestamp(seconds, 0)
        .unwrap_or_default()
        .format("%Y-%m-%dT%H:%M:%S%.3fZ")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_form_that_the_library_parses() {
        assert_eq!(timestamp(1_700_000_000), "2023-11-14T22:13:20.000Z");
        assert_eq!(timestamp(i64::MAX), "1970-01-01T00:00:00.000Z");
    }
}
