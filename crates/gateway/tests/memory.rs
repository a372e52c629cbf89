//! A large upload and its download in bounded memory. Alone in its file: other tests' memory would count.

#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

use std::sync::Arc;
use std::time::SystemTime;

use homeport_gateway::{BlobOptions, BlobStore, Metrics, Upload, UploadStyle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const BLOB_BYTES: usize = 512 << 20;
const CHUNK_BYTES: usize = 1 << 20;
/// More than blocks and socket buffers need, far less than the blob.
const MEMORY_BYTES: usize = 64 << 20;

/// The most memory that this process ever had, in bytes.
fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_gibibyte_passes_through_a_few_mebibytes_of_memory() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let clock = Arc::new(SystemTime::now);
    let blobs = Arc::new(BlobStore::open(BlobOptions::new(dir.path()), clock).unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = homeport_gateway::router(Arc::clone(&blobs), Metrics::default());
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });

    let before = peak_memory();
    let ticket = blobs.create(BLOB_BYTES as u64, "", "", "", UploadStyle::Single).unwrap();
    let Upload::Single { url } = ticket.upload else { unreachable!("a single upload was asked for") };
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head =
        format!("PUT {url} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {BLOB_BYTES}\r\n\r\n");
    connection.write_all(head.as_bytes()).await.unwrap();
    let chunk = vec![7u8; CHUNK_BYTES];
    for _ in 0..BLOB_BYTES / CHUNK_BYTES {
        connection.write_all(&chunk).await.unwrap();
    }
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let url = blobs.download_url(&ticket.blob_id, "").unwrap();
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head = format!("GET {url} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut buffer = vec![0u8; CHUNK_BYTES];
    let mut received = 0;
    loop {
        let count = connection.read(&mut buffer).await.unwrap();
        if count == 0 {
            break;
        }
        received += count;
    }
    assert!(received > BLOB_BYTES, "{received} bytes with the head");
    let grown = peak_memory() - before;
    assert!(grown < MEMORY_BYTES, "memory grew by {grown} bytes");
    server.abort();
}
