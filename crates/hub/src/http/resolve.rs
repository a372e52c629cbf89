//! `HEAD` and `GET /REPO/resolve/REV/PATH`: the files themselves.
//!
//! A path is looked up in the commit's list of files and in its tree, never on a file system.

use std::fs::File;
use std::io;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use homeport_content::{EntryRef, FileContent, LeafKind, SnapshotId};
use homeport_store::Store;
use http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::HubState;
use super::body;
use super::error::{HubError, X_REPO_COMMIT, header_text};
use super::range::{Selection, is_unchanged, select};
use super::target::Target;
use crate::hash::CommitHash;
use crate::record::ModelFile;

const X_LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");
const X_LINKED_SIZE: HeaderName = HeaderName::from_static("x-linked-size");

/// `HEAD`, `GET /REPO/resolve/REV/PATH`
pub(super) async fn file(
    State(state): State<HubState>,
    target: Target,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, HubError> {
    let model = target.model(&state).await?;
    let commit = target.commit(&model)?;
    let file = commit.files.get(&target.path).ok_or_else(|| target.no_entry(commit))?;
    let etag = format!("\"{}\"", file.etag());
    let mut response = Response::new(Body::empty());
    describe(response.headers_mut(), &target.path, file, commit.hash, &etag);
    if is_unchanged(&headers, &etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    if method == Method::HEAD {
        response.headers_mut().insert(CONTENT_LENGTH, file.size.into());
        return Ok(response);
    }
    let (start, end) = match select(&headers, file.size, &etag) {
        Selection::Whole => (0, file.size),
        Selection::Part { start, end } => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = format!("bytes {start}-{}/{}", end - 1, file.size);
            response.headers_mut().insert(CONTENT_RANGE, header_text(&range));
            (start, end)
        }
        Selection::Unsatisfiable => {
            let (size, commit) = (file.size, commit.hash);
            return Err(HubError::RangeNotSatisfiable { size, commit });
        }
    };
    tracing::info!(repo = %model.repo, commit = %commit.hash, path = target.path, start, end, "file download");
    let content = open(&state, commit.snapshot, target.path, file.size).await?;
    response.headers_mut().insert(CONTENT_LENGTH, (end - start).into());
    *response.body_mut() = match content {
        Content::Inline(bytes) => {
            let (start, end) = (start as usize, end as usize);
            Body::from(bytes.get(start..end).unwrap_or_default().to_vec())
        }
        Content::Object(object) => body::of_file(object, start, end).map_err(cannot_read)?,
    };
    Ok(response)
}

fn describe(headers: &mut HeaderMap, path: &str, file: &ModelFile, commit: CommitHash, etag: &str) {
    headers.insert(ETAG, header_text(etag));
    headers.insert(X_REPO_COMMIT, header_text(&commit.to_string()));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // Whatever a model contains, a browser is not to run it as a page of this server.
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_DISPOSITION, disposition(path));
    if file.large {
        headers.insert(X_LINKED_ETAG, header_text(etag));
        headers.insert(X_LINKED_SIZE, file.size.into());
    }
}

/// The file's name, as text for old clients and in full (RFC 6266).
fn disposition(path: &str) -> HeaderValue {
    let name = path.rsplit('/').next().unwrap_or(path);
    let plain: String = name
        .chars()
        .map(|c| if c == ' ' || (c.is_ascii_graphic() && !"\"\\".contains(c)) { c } else { '_' })
        .collect();
    let mut escaped = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    header_text(&format!("inline; filename*=UTF-8''{escaped}; filename=\"{plain}\";"))
}

enum Content {
    Inline(Box<[u8]>),
    Object(File),
}

/// Finds the file in the tree and opens its content, which must be as long as the record says.
async fn open(state: &HubState, snapshot: SnapshotId, path: String, size: u64) -> Result<Content, HubError> {
    let store = state.store.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let content = open_in_tree(&store, &snapshot, &path)?;
        let found = match &content {
            Content::Inline(bytes) => bytes.len() as u64,
            Content::Object(object) => object.metadata().map_err(cannot_read)?.len(),
        };
        if found != size {
            let message = format!("`{path}` of snapshot {snapshot} has {found} bytes instead of {size}");
            return Err(HubError::Internal(message));
        }
        Ok(content)
    });
    opened.await.map_err(|error| HubError::Internal(error.to_string()))?
}

fn open_in_tree(store: &Store, snapshot: &SnapshotId, path: &str) -> Result<Content, HubError> {
    let tree = store.tree(snapshot)?;
    let Some(EntryRef::Leaf(_, leaf)) = tree.get(path.as_bytes()) else {
        return Err(HubError::Internal(format!("snapshot {snapshot} has no file `{path}`")));
    };
    match &leaf.kind {
        LeafKind::File(FileContent::Inline(bytes)) => Ok(Content::Inline(bytes.clone())),
        LeafKind::File(FileContent::Object { digest, .. }) => Ok(Content::Object(store.open_object(digest)?)),
        _ => Err(HubError::Internal(format!("`{path}` of snapshot {snapshot} is not a file"))),
    }
}

fn cannot_read(error: io::Error) -> HubError {
    HubError::Internal(format!("cannot read an object: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_in_the_disposition() {
        let value = disposition("a/grün\".bin");
        let expected = "inline; filename*=UTF-8''gr%C3%BCn%22.bin; filename=\"gr_n_.bin\";";
        assert_eq!(value.to_str().unwrap(), expected);
    }
}
