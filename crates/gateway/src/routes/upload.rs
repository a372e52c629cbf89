//! Uploads: one `PUT`, or one for each part and a `POST` that completes them.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{OriginalUri, Path, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, header};
use serde::Deserialize;

use super::RequestError;
use crate::blobs::grant::{GrantError, Method, Terms};
use crate::blobs::multipart;
use crate::blobs::{BlobId, BlobStore};
use crate::receive::{Destination, ReceiveError, drain, receive};

type Answer = Result<[(HeaderName, String); 1], RequestError>;

/// `PUT /blobs/{id}`.
pub(super) async fn single(
    State(blobs): State<Arc<BlobStore>>,
    Path(id): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let terms = blobs.signer.check(Method::Put, &uri, blobs.now())?;
    let id: BlobId = id.parse()?;
    let declared = declared_length(&terms)?;
    check_content_length(&headers, declared)?;
    let upload = match blobs.new_upload(&id) {
        Ok(upload) => upload,
        Err(error) => return refuse(body, error).await,
    };
    let destination = Destination {
        file: upload.as_file().try_clone()?,
        offset: 0,
        claim: None,
        with_sha256: terms.sha256.is_some(),
    };
    let received = receive(body, declared, destination).await?;
    let md5 = hex::encode(received.md5);
    check_content_md5(&headers, &md5)?;
    check_hash("MD5", &md5, terms.md5.as_deref())?;
    if let Some(sha256) = received.sha256 {
        check_hash("SHA-256", &hex::encode(sha256), terms.sha256.as_deref())?;
    }
    on_disk(move || Ok(blobs.publish(upload, &id)?)).await?;
    Ok(etag(&md5))
}

/// `PUT /blobs/{id}/parts/{number}`.
pub(super) async fn part(
    State(blobs): State<Arc<BlobStore>>,
    Path((id, number)): Path<(String, u64)>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let terms = blobs.signer.check(Method::Put, &uri, blobs.now())?;
    let id: BlobId = id.parse()?;
    let (offset, declared) = multipart::part_range(declared_length(&terms)?, part_length(&terms)?, number)
        .ok_or(RequestError::NoSuchPart(number))?;
    check_content_length(&headers, declared)?;
    let (begin, begin_id) = (Arc::clone(&blobs), id.clone());
    let (file, claim) = match on_disk(move || Ok(begin.begin_part(&begin_id, number)?)).await {
        Ok(Some(begun)) => begun,
        Ok(None) => return refuse(body, RequestError::AlreadyComplete).await,
        Err(error) => return refuse(body, error).await,
    };
    let claim = Arc::new(claim);
    let destination =
        Destination { file: file.try_clone()?, offset, claim: Some(Arc::clone(&claim)), with_sha256: false };
    let received = receive(body, declared, destination).await?;
    let md5 = hex::encode(received.md5);
    check_content_md5(&headers, &md5)?;
    on_disk(move || Ok(blobs.end_part(&id, &file, &claim, &received.md5)?)).await?;
    Ok(etag(&md5))
}

/// `POST /blobs/{id}/complete`.
pub(super) async fn complete(
    State(blobs): State<Arc<BlobStore>>,
    Path(id): Path<String>,
    OriginalUri(uri): OriginalUri,
    body: Bytes,
) -> Result<String, RequestError> {
    let terms = blobs.signer.check(Method::Post, &uri, blobs.now())?;
    let id: BlobId = id.parse()?;
    let (length, part_length) = (declared_length(&terms)?, part_length(&terms)?);
    let parts = parse_completion(&body)?;
    let name = id.to_string();
    let etag = on_disk(move || Ok(blobs.complete(&id, length, part_length, &parts)?)).await?;
    Ok(format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<CompleteMultipartUploadResult>\
         <Key>{name}</Key><ETag>\"{etag}\"</ETag></CompleteMultipartUploadResult>\n"
    ))
}

#[derive(Deserialize)]
struct Completion {
    #[serde(rename = "Part", default)]
    parts: Vec<CompletedPart>,
}

#[derive(Deserialize)]
struct CompletedPart {
    #[serde(rename = "PartNumber")]
    number: u64,
    #[serde(rename = "ETag")]
    etag: String,
}

/// Part numbers and ETags (hex MD5s) of a `CompleteMultipartUpload` document.
fn parse_completion(body: &[u8]) -> Result<Vec<(u64, String)>, RequestError> {
    let completion: Completion =
        quick_xml::de::from_reader(body).map_err(|error| RequestError::BadCompletion(error.to_string()))?;
    completion
        .parts
        .into_iter()
        .map(|part| {
            let etag = part.etag.trim().trim_matches('"').to_ascii_lowercase();
            if etag.len() == 32 && etag.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                Ok((part.number, etag))
            } else {
                let message = format!("the ETag of part {} is not an MD5", part.number);
                Err(RequestError::BadCompletion(message))
            }
        })
        .collect()
}

// The signer puts these parameters into every URL of the kind that asks for them.
fn declared_length(terms: &Terms) -> Result<u64, RequestError> {
    Ok(terms.length.ok_or(GrantError::BadSignature)?)
}

fn part_length(terms: &Terms) -> Result<u64, RequestError> {
    Ok(terms.part_length.ok_or(GrantError::BadSignature)?)
}

fn check_content_length(headers: &HeaderMap, declared: u64) -> Result<(), RequestError> {
    let sent = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse().ok());
    match sent {
        Some(sent) if sent != declared => Err(RequestError::WrongLength { sent, declared }),
        _ => Ok(()),
    }
}

fn check_content_md5(headers: &HeaderMap, actual: &str) -> Result<(), RequestError> {
    let Some(declared) = headers.get("content-md5") else {
        return Ok(());
    };
    let declared = STANDARD.decode(declared.as_bytes()).map(hex::encode).unwrap_or_default();
    check_hash("MD5", actual, Some(&declared))
}

fn check_hash(algorithm: &'static str, actual: &str, declared: Option<&str>) -> Result<(), RequestError> {
    match declared {
        Some(declared) if declared != actual => Err(RequestError::WrongHash {
            algorithm,
            actual: actual.to_owned(),
            declared: declared.to_owned(),
        }),
        _ => Ok(()),
    }
}

fn etag(md5: &str) -> [(HeaderName, String); 1] {
    [(header::ETAG, format!("\"{md5}\""))]
}

/// An error whose sender hears it.
async fn refuse<T>(body: Body, error: impl Into<RequestError>) -> Result<T, RequestError> {
    drain(&mut body.into_data_stream()).await;
    Err(error.into())
}

/// Runs what blocks on the disk away from the threads that serve.
pub(super) async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RequestError> + Send + 'static,
) -> Result<T, RequestError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ReceiveError::Stopping)?
}

#[cfg(test)]
mod tests {
    use super::*;

    const MD5: &str = "0cc175b9c0f1b6a831c399e269772661";

    #[test]
    fn the_documents_of_the_clients_are_read() {
        let body = format!(
            "<CompleteMultipartUpload>\n<Part>\n<PartNumber>1</PartNumber>\n<ETag>\"{MD5}\"</ETag>\n</Part>\n\
             <Part>\n<PartNumber>2</PartNumber>\n<ETag>\"{MD5}\"</ETag>\n</Part>\n</CompleteMultipartUpload>"
        );
        let parts = parse_completion(body.as_bytes()).unwrap();
        assert_eq!(parts, [(1, MD5.to_owned()), (2, MD5.to_owned())]);
    }

    #[test]
    fn what_is_no_list_of_parts_is_refused() {
        for bad in ["", "hello", "<CompleteMultipartUpload><Part><PartNumber>x"] {
            assert!(parse_completion(bad.as_bytes()).is_err(), "{bad}");
        }
        let no_md5 = "<C><Part><PartNumber>1</PartNumber><ETag>\"xyz\"</ETag></Part></C>";
        assert!(parse_completion(no_md5.as_bytes()).is_err());
    }

    #[test]
    fn fuzz_completions() {
        let seed = "<CompleteMultipartUpload>\n<Part>\n<PartNumber>1</PartNumber>\n\
                    <ETag>\"0123456789abcdef0123456789abcdef\"</ETag>\n</Part></CompleteMultipartUpload>";
        homeport_fuzz::Target::new(env!("CARGO_MANIFEST_DIR"), "completions").fuzz([seed.into()], |bytes| {
            match parse_completion(bytes) {
                Ok(parts) => format!("{} parts", ["no", "one", "some"][parts.len().min(2)]),
                Err(error) => error.to_string(),
            }
        });
    }
}
