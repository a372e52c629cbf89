//! Blobs over real HTTP on loopback, as the clients use them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something unexpected happens")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use homeport_gateway::{BlobOptions, BlobStore, BlobTicket, Metrics, Upload, UploadStyle};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use md5::{Digest, Md5};
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PART_BYTES: u64 = 1000;

struct Server {
    dir: tempfile::TempDir,
    blobs: Arc<BlobStore>,
    base_url: String,
    /// Seconds that the server's clock is ahead.
    ahead: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve() -> Server {
    let dir = tempfile::tempdir().unwrap();
    let ahead = Arc::new(AtomicU64::new(0));
    let clock_ahead = Arc::clone(&ahead);
    let clock = move || SystemTime::now() + Duration::from_secs(clock_ahead.load(Ordering::SeqCst));
    let options = BlobOptions { part_bytes: PART_BYTES, ..BlobOptions::new(dir.path()) };
    let blobs = Arc::new(BlobStore::open(options, Arc::new(clock)).unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    let router = homeport_gateway::router(Arc::clone(&blobs), Metrics::default());
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Server { dir, blobs, base_url, ahead, task }
}

impl Server {
    fn create(&self, data: &[u8], style: UploadStyle) -> BlobTicket {
        let md5 = STANDARD.encode(Md5::digest(data));
        let sha256 = STANDARD.encode(Sha256::digest(data));
        self.blobs.create(data.len() as u64, &md5, &sha256, &self.base_url, style).unwrap()
    }

    /// Names of all files of blobs.
    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name.starts_with("bl-"));
        names.sort();
        names
    }

    /// Waits until the server has thrown away what it will not keep.
    async fn files_become_empty(&self) {
        for _ in 0..200 {
            if self.files().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("files are left: {:?}", self.files());
    }
}

async fn request(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Response<Bytes> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

fn single(ticket: &BlobTicket) -> &str {
    let Upload::Single { url } = &ticket.upload else { panic!("not a single upload") };
    url
}

fn data(length: usize) -> Vec<u8> {
    (0..length).map(|position| (position * 31 % 251) as u8).collect()
}

fn etag(data: &[u8]) -> String {
    format!("\"{}\"", hex::encode(Md5::digest(data)))
}

#[tokio::test]
async fn a_single_upload_is_downloaded_whole_and_in_ranges() {
    let server = serve().await;
    let data = data(3_000_000);
    let ticket = server.create(&data, UploadStyle::Single);
    let put = request(Method::PUT, single(&ticket), &[], data.clone()).await;
    assert_eq!(put.status(), StatusCode::OK);
    assert_eq!(put.headers()["etag"], etag(&data));

    let url = server.blobs.download_url(&ticket.blob_id, &server.base_url).unwrap();
    let whole = request(Method::GET, &url, &[], "").await;
    assert_eq!(whole.status(), StatusCode::OK);
    assert!(whole.body() == &data);
    let part = request(Method::GET, &url, &[("range", "bytes=1000000-1999999")], "").await;
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()["content-range"], "bytes 1000000-1999999/3000000");
    assert!(part.body() == &data[1_000_000..2_000_000]);
    let outside = request(Method::GET, &url, &[("range", "bytes=3000000-")], "").await;
    assert_eq!(outside.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(outside.headers()["content-range"], "bytes */3000000");
    let head = request(Method::HEAD, &url, &[], "").await;
    assert_eq!(
        (head.status(), &head.headers()["content-length"]),
        (StatusCode::OK, &"3000000".parse().unwrap())
    );
}

#[tokio::test]
async fn a_multipart_upload_is_assembled_from_parts_in_any_order() {
    let server = serve().await;
    let data = data(2500);
    let ticket = server.create(&data, UploadStyle::Multipart);
    let Upload::Multipart { part_length, part_urls, completion_url } = &ticket.upload else { panic!() };
    assert_eq!((*part_length, part_urls.len()), (PART_BYTES, 3));

    let parts: Vec<&[u8]> = data.chunks(1000).collect();
    for number in [2, 0, 1, 1] {
        let put = request(Method::PUT, &part_urls[number], &[], parts[number].to_vec()).await;
        assert_eq!(
            (put.status(), &put.headers()["etag"]),
            (StatusCode::OK, &etag(parts[number]).parse().unwrap())
        );
    }
    let completion = |etags: &[String]| {
        let parts: String = (1..)
            .zip(etags)
            .map(|(number, etag)| {
                format!("<Part>\n<PartNumber>{number}</PartNumber>\n<ETag>{etag}</ETag>\n</Part>\n")
            })
            .collect();
        format!("<CompleteMultipartUpload>\n{parts}</CompleteMultipartUpload>")
    };
    let etags: Vec<_> = parts.iter().map(|part| etag(part)).collect();

    let swapped = completion(&[etags[1].clone(), etags[0].clone(), etags[2].clone()]);
    let refused = request(Method::POST, completion_url, &[], swapped).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    let short = request(Method::POST, completion_url, &[], completion(&etags[..2])).await;
    assert_eq!(short.status(), StatusCode::BAD_REQUEST);

    let binary: Vec<u8> = parts.iter().flat_map(Md5::digest).collect();
    let expected = format!("{}-3", hex::encode(Md5::digest(binary)));
    for attempt in ["first", "repeated"] {
        let done = request(Method::POST, completion_url, &[], completion(&etags)).await;
        assert_eq!(done.status(), StatusCode::OK, "{attempt}");
        let body = String::from_utf8(done.body().to_vec()).unwrap();
        assert!(body.contains(&expected), "{attempt}: {body}");
    }
    assert_eq!(std::fs::read(server.blobs.path(&ticket.blob_id)).unwrap(), data);
    assert_eq!(server.files(), [ticket.blob_id.to_string()]);
    let late = request(Method::PUT, &part_urls[0], &[], parts[0].to_vec()).await;
    assert_eq!(late.status(), StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_completion_that_lacks_a_part_names_it() {
    let server = serve().await;
    let data = data(1500);
    let ticket = server.create(&data, UploadStyle::Multipart);
    let Upload::Multipart { part_urls, completion_url, .. } = &ticket.upload else { panic!() };
    request(Method::PUT, &part_urls[0], &[], data[..1000].to_vec()).await;
    let body = format!(
        "<C><Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part><Part><PartNumber>2</PartNumber><ETag>{}</ETag></Part></C>",
        etag(&data[..1000]),
        etag(&data[1000..])
    );
    let refused = request(Method::POST, completion_url, &[], body).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert_eq!(refused.body(), "error: part 2 was not uploaded\n");
    assert!(server.blobs.open_blob(&ticket.blob_id).is_err());
}

#[tokio::test]
async fn bytes_that_are_not_the_declared_ones_leave_nothing() {
    let server = serve().await;
    let data = data(5000);
    let mut other = data.clone();
    other[17] ^= 1;
    let ticket = server.create(&data, UploadStyle::Single);
    let refused = request(Method::PUT, single(&ticket), &[], other).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert!(refused.body().starts_with(b"error: the body's MD5 is "));

    let undeclared = server.blobs.create(5, "", "", &server.base_url, UploadStyle::Single).unwrap();
    let wrong = STANDARD.encode(Md5::digest("other"));
    let refused = request(Method::PUT, single(&undeclared), &[("content-md5", &wrong)], "hello").await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    for body in ["hell", "hello!"] {
        let refused = request(Method::PUT, single(&undeclared), &[], body).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{body}");
    }
    server.files_become_empty().await;
}

#[tokio::test]
async fn an_expired_or_changed_url_is_refused() {
    let server = serve().await;
    let ticket = server.create(b"hello", UploadStyle::Single);
    let url = single(&ticket);
    let forbidden = async |url: &str| {
        let refused = request(Method::PUT, url, &[], "hello").await;
        assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{url}");
        String::from_utf8(refused.body().to_vec()).unwrap()
    };
    forbidden(&url.replace("length=5", "length=4")).await;
    forbidden(&url.replace(ticket.blob_id.as_str(), "bl-0123456789012345678901")).await;
    forbidden(url.split('?').next().unwrap()).await;
    let download = request(Method::GET, url, &[], "").await;
    assert_eq!(download.status(), StatusCode::FORBIDDEN);

    server.ahead.store(25 * 60 * 60, Ordering::SeqCst);
    assert!(forbidden(url).await.contains("expired"));
    server.files_become_empty().await;
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let server = serve().await;
    let data = data(3 << 20);
    let ticket = server.create(&data, UploadStyle::Single);
    let path = single(&ticket).strip_prefix(&server.base_url).unwrap();
    let address = server.base_url.strip_prefix("http://").unwrap();
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!("PUT {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n", data.len());
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&data[..2 << 20]).await.unwrap();
    while server.files().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(connection);
    server.files_become_empty().await;
    assert!(server.blobs.open_blob(&ticket.blob_id).is_err());

    let again = request(Method::PUT, single(&ticket), &[], data.clone()).await;
    assert_eq!(again.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_body_longer_than_declared_is_refused_also_without_a_content_length() {
    let server = serve().await;
    let ticket = server.create(b"hello", UploadStyle::Single);
    let path = single(&ticket).strip_prefix(&server.base_url).unwrap();
    let address = server.base_url.strip_prefix("http://").unwrap();
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "PUT {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n6\r\nhello!\r\n0\r\n\r\n"
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    server.files_become_empty().await;
}

#[tokio::test]
async fn health_and_metrics_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Metrics::default();
    let counter = prometheus_client::metrics::counter::Counter::<u64>::default();
    metrics.register(|registry| registry.register("calls", "Calls taken", counter.clone()));
    counter.inc_by(3);
    let blobs = BlobStore::open(BlobOptions::new(dir.path()), Arc::new(SystemTime::now)).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    let router = homeport_gateway::router(Arc::new(blobs), metrics);
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let health = request(Method::GET, &format!("{base_url}/healthz"), &[], "").await;
    assert_eq!((health.status(), health.body().as_ref()), (StatusCode::OK, b"ok\n".as_slice()));
    let text = request(Method::GET, &format!("{base_url}/metrics"), &[], "").await;
    let text = String::from_utf8(text.body().to_vec()).unwrap();
    assert!(text.contains("homeport_calls_total 3"), "{text}");
    task.abort();
}
