//! Files and directories of a commit as JSON.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{RawQuery, State};
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::{Value, json};

use super::HubState;
use super::error::HubError;
use super::info::timestamp;
use super::query::Query;
use super::target::Target;
use crate::git::{large_file_pointer, tree_ids};
use crate::hash::GitId;
use crate::record::{Commit, ModelFile};

/// `GET /api/models/REPO/tree/REV[/PATH]`
pub(super) async fn list(
    State(state): State<HubState>,
    target: Target,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, HubError> {
    let query = Query::parse(query.unwrap_or_default().as_bytes());
    let model = target.model(&state).await?;
    let commit = target.commit(&model)?;
    let directories = tree_ids(&commit.files);
    if !directories.contains_key(&target.path) {
        return Err(target.no_entry(commit));
    }
    let (recursive, expand) = (query.flag("recursive"), query.flag("expand"));
    let is_listed =
        |path: &&String| below(&target.path, path).is_some_and(|rest| recursive || !rest.contains('/'));
    let mut entries: BTreeMap<&String, Value> = BTreeMap::new();
    for path in directories.keys().filter(is_listed) {
        entries.insert(path, directory_entry(path, &directories[path], commit, expand));
    }
    for path in commit.files.keys().filter(is_listed) {
        entries.insert(path, file_entry(path, &commit.files[path], commit, expand));
    }
    Ok(Json(entries.into_values().collect()))
}

/// `POST /api/models/REPO/paths-info/REV`: what is not there is left out of the answer.
pub(super) async fn paths_info(
    State(state): State<HubState>,
    target: Target,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, HubError> {
    let asked = PathsInfo::parse(&headers, &body)?;
    let model = target.model(&state).await?;
    let commit = target.commit(&model)?;
    let directories = tree_ids(&commit.files);
    let entries = asked.paths.iter().filter_map(|path| {
        let path = path.trim_matches('/');
        if let Some(file) = commit.files.get(path) {
            return Some(file_entry(path, file, commit, asked.expand));
        }
        let id = directories.get(path).filter(|_| !path.is_empty())?;
        Some(directory_entry(path, id, commit, asked.expand))
    });
    Ok(Json(entries.collect()))
}

/// The library sends a form; other clients of the hub send JSON.
#[derive(Debug, Deserialize)]
struct PathsInfo {
    paths: Vec<String>,
    #[serde(default)]
    expand: bool,
}

impl PathsInfo {
    fn parse(headers: &HeaderMap, body: &[u8]) -> Result<PathsInfo, HubError> {
        let kind = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
        if kind.is_some_and(|kind| kind.starts_with(b"application/json")) {
            return serde_json::from_slice(body)
                .map_err(|error| HubError::BadRequest(format!("the body is not understood: {error}")));
        }
        let form = Query::parse(body);
        Ok(PathsInfo { paths: form.all("paths").map(str::to_owned).collect(), expand: form.flag("expand") })
    }
}

/// What follows `directory/` in `path`, if it is below that directory.
fn below<'a>(directory: &str, path: &'a str) -> Option<&'a str> {
    if directory.is_empty() {
        return Some(path).filter(|path| !path.is_empty());
    }
    path.strip_prefix(directory)?.strip_prefix('/')
}

fn file_entry(path: &str, file: &ModelFile, commit: &Commit, expand: bool) -> Value {
    let mut entry = json!({ "type": "file", "path": path, "size": file.size, "oid": file.git_id });
    if file.large {
        entry["lfs"] = json!({
            "oid": file.sha256,
            "size": file.size,
            "pointerSize": large_file_pointer(&file.sha256, file.size).len(),
        });
    }
    with_commit(entry, commit, expand)
}

fn directory_entry(path: &str, id: &GitId, commit: &Commit, expand: bool) -> Value {
    let entry = json!({ "type": "directory", "path": path, "size": 0, "oid": id });
    with_commit(entry, commit, expand)
}

fn with_commit(mut entry: Value, commit: &Commit, expand: bool) -> Value {
    if expand {
        entry["lastCommit"] = json!({
            "id": commit.hash,
            "title": "Import",
            "date": timestamp(commit.created),
        });
    }
    entry
}
