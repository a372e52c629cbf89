//! Blocks and contents over real HTTP on loopback, as the clients use them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something unexpected happens")]

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use homeport_content::Digest;
use homeport_gateway::{BLOCK_BYTES, BlobOptions, BlobStore, BlockPlan, BlockUpload, ContentPart, Metrics};
use homeport_store::Store;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const BLOCK: usize = BLOCK_BYTES as usize;

struct Server {
    _dir: tempfile::TempDir,
    blobs: Arc<BlobStore>,
    store: Arc<Store>,
    base_url: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve() -> Server {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let blobs =
        BlobStore::open(BlobOptions::new(dir.path().join("blobs")), Arc::new(SystemTime::now)).unwrap();
    let blobs = Arc::new(blobs);
    let store = Arc::new(Store::open(&dir.path().join("store")).unwrap());
    let metrics = Metrics::default();
    metrics.register(|registry| blobs.blocks().register_metrics(registry));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    let router = homeport_gateway::router(Arc::clone(&blobs), metrics)
        .merge(homeport_gateway::content_router(Arc::clone(&blobs), Arc::clone(&store)));
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Server { _dir: dir, blobs, store, base_url, task }
}

impl Server {
    /// An upload of a file whose blocks are named as they are, and where each is sent to.
    fn begin(&self, file: &[u8]) -> (BlockPlan, Arc<BlockUpload>, Vec<String>) {
        let names: Vec<_> = file.chunks(BLOCK).map(|block| Sha256::digest(block).into()).collect();
        let plan = BlockPlan::new(file.len() as u64, names).unwrap();
        let upload = self.blobs.blocks().begin(&plan).unwrap();
        let urls = (0..plan.blocks().len())
            .map(|index| {
                let (_, length) = plan.range(index);
                let name = &plan.blocks()[index];
                self.blobs.block_url(&upload.key(), index, name, length, &self.base_url)
            })
            .collect();
        (plan, upload, urls)
    }

    async fn counted(&self) -> String {
        let url = format!("{}/metrics", self.base_url);
        let text = request(Method::GET, &url, &[], "").await.into_body();
        let text = String::from_utf8(text.to_vec()).unwrap();
        let line = text.lines().find(|line| line.starts_with("homeport_upload_block_bytes_total"));
        line.unwrap().split(' ').next_back().unwrap().to_owned()
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

fn data(length: usize) -> Vec<u8> {
    (0..length).map(|at| ((at / BLOCK) * 7 + at * 31 % 251) as u8 | 1).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_are_sent_in_parallel_and_counted_once() {
    let server = serve().await;
    let file = data(2 * BLOCK + 3);
    let (plan, upload, urls) = server.begin(&file);
    let mut sending = tokio::task::JoinSet::new();
    for (url, block) in urls.iter().zip(file.chunks(BLOCK)) {
        let (url, block) = (url.clone(), block.to_vec());
        sending.spawn(async move { request(Method::PUT, &url, &[], block).await });
    }
    for answer in sending.join_all().await {
        assert_eq!(answer.status(), StatusCode::OK, "{answer:?}");
        assert_eq!(answer.body().len(), 64);
    }
    let again = request(Method::PUT, &urls[0], &[], file[..BLOCK].to_vec()).await;
    assert_eq!(again.status(), StatusCode::OK);
    assert_eq!(server.counted().await, file.len().to_string());
    let whole = upload.assemble(&plan).unwrap();
    assert!(std::fs::read(whole.path).unwrap() == file);
}

#[tokio::test]
async fn a_block_is_taken_only_as_its_url_says() {
    let server = serve().await;
    let file = data(1000);
    let (plan, upload, urls) = server.begin(&file);
    let status = async |url: &str, body: &[u8]| request(Method::PUT, url, &[], body.to_vec()).await.status();
    assert_eq!(status(&urls[0].replace("length=1000", "length=2000"), &file).await, StatusCode::FORBIDDEN);
    assert_eq!(status(&urls[0].replace("/0?", "/1?"), &file).await, StatusCode::FORBIDDEN);
    assert_eq!(status(&urls[0], &data(1001)).await, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(status(&urls[0], &file[..999]).await, StatusCode::BAD_REQUEST);
    assert_eq!(upload.missing(&plan).unwrap(), [0]);
    server.blobs.blocks().forget(&upload).unwrap();
    assert_eq!(status(&urls[0], &file).await, StatusCode::NOT_FOUND);
    assert_eq!(server.counted().await, "0");
}

#[tokio::test]
async fn a_block_whose_connection_breaks_is_missing_until_it_is_sent_again() {
    let server = serve().await;
    let file = data(3 << 20);
    let (plan, upload, urls) = server.begin(&file);
    let path = urls[0].strip_prefix(&server.base_url).unwrap();
    let mut connection =
        tokio::net::TcpStream::connect(server.base_url.strip_prefix("http://").unwrap()).await.unwrap();
    let head = format!("PUT {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n", file.len());
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&file[..2 << 20]).await.unwrap();
    connection.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _ = connection.read_to_end(&mut answer).await;
    assert_eq!(upload.missing(&plan).unwrap(), [0]);
    let put = request(Method::PUT, &urls[0], &[], file.clone()).await;
    assert_eq!(put.status(), StatusCode::OK);
    assert_eq!(upload.missing(&plan).unwrap(), [0; 0]);
}

#[tokio::test]
async fn contents_are_downloaded_in_the_range_that_was_granted() {
    let server = serve().await;
    let bytes = data(100_000);
    let digest = server.store.put_bytes(&bytes).unwrap();
    let part = ContentPart { digest, start: 1000, length: 5000, may_be_cut: false };
    let url = server.blobs.grant_content(&part).url(&server.base_url);
    let whole = request(Method::GET, &url, &[], "").await;
    assert_eq!(whole.status(), StatusCode::OK);
    assert!(whole.body() == &bytes[1000..6000]);
    let range = request(Method::GET, &url, &[("range", "bytes=10-19")], "").await;
    assert_eq!(
        (range.status(), range.body()),
        (StatusCode::PARTIAL_CONTENT, &bytes[1010..1020].to_vec().into())
    );
    let wider = request(Method::GET, &url.replace("start=1000", "start=0"), &[], "").await;
    assert_eq!(wider.status(), StatusCode::FORBIDDEN);
    let beyond = ContentPart { start: 99_000, length: BLOCK_BYTES, ..part };
    let tail =
        request(Method::GET, &server.blobs.grant_content(&beyond).url(&server.base_url), &[], "").await;
    assert!(tail.body() == &bytes[99_000..]);
    let gone = ContentPart { digest: Digest::of(b"nobody has this"), ..part };
    let gone = request(Method::GET, &server.blobs.grant_content(&gone).url(&server.base_url), &[], "").await;
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_token_is_its_own_proof() {
    let server = serve().await;
    let token = server.blobs.grant_bytes(b"few bytes");
    let known = server.blobs.content_token(token.as_str()).unwrap();
    let got = request(Method::GET, &known.url(&server.base_url), &[], "").await;
    assert_eq!(got.body(), &Bytes::from_static(b"few bytes"));
    assert!(server.blobs.content_token(&token.as_str().replace("data=66", "data=67")).is_err());
    assert!(server.blobs.content_token("/blobs/content/x").is_err());
}

#[tokio::test]
async fn holes_at_the_end_of_a_range_are_not_sent_to_who_puts_them_back() {
    let server = serve().await;
    let (plan, upload, urls) = server.begin(&{
        let mut file = vec![0; 2 * BLOCK];
        file[..5].copy_from_slice(b"hello");
        file
    });
    let mut first = vec![0; BLOCK];
    first[..5].copy_from_slice(b"hello");
    assert_eq!(upload.missing(&plan).unwrap(), [0]);
    assert_eq!(request(Method::PUT, &urls[0], &[], first.clone()).await.status(), StatusCode::OK);
    let whole = upload.assemble(&plan).unwrap();
    let (digest, _) = server.store.adopt_file(&whole.path).unwrap();
    assert_eq!(digest.to_hex(), hex::encode(whole.digest));
    for (index, expected) in [(0, &first[..]), (1, &[][..])] {
        let part = ContentPart { digest, start: index * BLOCK_BYTES, length: BLOCK_BYTES, may_be_cut: true };
        let cut =
            request(Method::GET, &server.blobs.grant_content(&part).url(&server.base_url), &[], "").await;
        assert!(cut.body().starts_with(&expected[..expected.len().min(5)]));
        assert!(cut.body().len() <= expected.len());
        let part = ContentPart { may_be_cut: false, ..part };
        let all =
            request(Method::GET, &server.blobs.grant_content(&part).url(&server.base_url), &[], "").await;
        assert_eq!(all.body().len(), BLOCK);
    }
}
