//! `GET /blobs/{id}`: the whole blob, or one range of it.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::sync::Arc;

use axum::extract::{OriginalUri, Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::RequestError;
use crate::blobs::grant::Method;
use crate::blobs::{BlobError, BlobId, BlobStore};

/// Read from disk at a time, which is also what a download holds in memory.
const PIECE_BYTES: usize = 1 << 20;

pub(super) async fn download(
    State(blobs): State<Arc<BlobStore>>,
    Path(id): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, RequestError> {
    blobs.signer.check(Method::Get, &uri, blobs.now())?;
    let id: BlobId = id.parse()?;
    let file = blobs.open_blob(&id)?;
    let failed = |source| BlobError::Io { operation: "read", id: id.clone(), source };
    let length = file.metadata().map_err(failed)?.len();
    answer(Body::File { file, start: 0, length }, &headers)
}

/// What is downloaded.
pub(super) enum Body {
    Bytes(Bytes),
    /// A part of a file.
    File {
        file: File,
        start: u64,
        length: u64,
    },
}

/// The body, or the one range of it that was asked for.
pub(super) fn answer(body: Body, headers: &HeaderMap) -> Result<Response, RequestError> {
    let length = match &body {
        Body::Bytes(bytes) => bytes.len() as u64,
        Body::File { length, .. } => *length,
    };
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let (status, first, count) = match range.map(|range| parse_range(range, length)) {
        None | Some(Range::Ignored) => (StatusCode::OK, 0, length),
        Some(Range::Part { start, count }) => (StatusCode::PARTIAL_CONTENT, start, count),
        Some(Range::Outside) => return Err(RequestError::BadRange { length }),
    };
    let body = match body {
        Body::Bytes(bytes) => bytes.slice(first as usize..(first + count) as usize).into(),
        Body::File { mut file, start, .. } => {
            file.seek(SeekFrom::Start(start + first))?;
            let reader = tokio::fs::File::from_std(file).take(count);
            axum::body::Body::from_stream(ReaderStream::with_capacity(reader, PIECE_BYTES))
        }
    };
    let mut response = (
        status,
        [
            (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
            (header::CONTENT_LENGTH, count.to_string()),
            (header::ACCEPT_RANGES, "bytes".to_owned()),
        ],
        body,
    )
        .into_response();
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(value) = format!("bytes {first}-{}/{length}", first + count - 1).parse()
    {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    Ok(response)
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    /// Not a form that is served in parts: HTTP allows to answer with the whole.
    Ignored,
    Part {
        start: u64,
        /// At least 1.
        count: u64,
    },
    Outside,
}

/// One range in bytes: `bytes=2-5`, `bytes=2-`, `bytes=-5`.
fn parse_range(header: &str, length: u64) -> Range {
    let Some((first, last)) = header.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Range::Ignored;
    };
    let (first, last) = (first.trim(), last.trim());
    let bounds = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => (first, last.min(length.saturating_sub(1))),
        (Ok(first), Err(_)) if last.is_empty() => (first, length.saturating_sub(1)),
        (Err(_), Ok(0)) if first.is_empty() => return Range::Outside,
        (Err(_), Ok(last)) if first.is_empty() => (length.saturating_sub(last), length.saturating_sub(1)),
        _ => return Range::Ignored,
    };
    if bounds.0 >= length {
        return Range::Outside;
    }
    Range::Part { start: bounds.0, count: bounds.1 - bounds.0 + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_means_them() {
        let part = |start, count| Range::Part { start, count };
        assert_eq!(parse_range("bytes=2-5", 10), part(2, 4));
        assert_eq!(parse_range("bytes=2-", 10), part(2, 8));
        assert_eq!(parse_range("bytes=-3", 10), part(7, 3));
        assert_eq!(parse_range("bytes=-30", 10), part(0, 10));
        assert_eq!(parse_range("bytes=2-500", 10), part(2, 8));
        assert_eq!(parse_range("bytes=0-0", 10), part(0, 1));
        for outside in ["bytes=10-", "bytes=10-12", "bytes=-0"] {
            assert_eq!(parse_range(outside, 10), Range::Outside, "{outside}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Range::Outside);
        for ignored in
            ["bytes=5-2", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=1-2,4-5", "bytes=99999999999999999999-"]
        {
            assert_eq!(parse_range(ignored, 10), Range::Ignored, "{ignored}");
        }
    }

    #[test]
    fn fuzz_ranges() {
        let seeds = ["bytes=0-5", "bytes=2-", "bytes=-7"].map(Vec::from);
        homeport_fuzz::Target::new(env!("CARGO_MANIFEST_DIR"), "ranges").fuzz(seeds, |bytes| {
            let header = String::from_utf8_lossy(bytes);
            let ranges = [0, 1, 10, u64::MAX].map(|length| {
                let range = parse_range(&header, length);
                if let Range::Part { start, count } = range {
                    assert!(
                        count > 0 && start.checked_add(count).is_some_and(|end| end <= length),
                        "{range:?}"
                    );
                }
                range
            });
            format!("{ranges:?}")
        });
    }
}
