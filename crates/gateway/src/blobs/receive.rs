//! A request body on its way to disk: block by block, hashed, never more than a block in memory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use axum::body::Body;
use bytes::BytesMut;
use futures::StreamExt;
use md5::{Digest, Md5};
use sha2::Sha256;

use super::multipart::PartClaim;

/// What is gathered before the disk is asked. Also bounds the memory of an upload.
const BLOCK_BYTES: usize = 1 << 20;

/// Why a body was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    #[error("the body ended after {received} of {declared} bytes")]
    Truncated { received: u64, declared: u64 },
    #[error("the body is longer than the {declared} bytes that were declared")]
    TooLong { declared: u64 },
    #[error("the body broke off after {received} of {declared} bytes")]
    Broken { received: u64, declared: u64, source: axum::Error },
    #[error("a newer upload of the same part took over")]
    Superseded,
    #[error("cannot write the upload")]
    Io(#[from] std::io::Error),
    #[error("the server is stopping")]
    Stopping,
}

/// What arrived.
pub(crate) struct Received {
    pub(crate) md5: [u8; 16],
    /// Only if it was asked for.
    pub(crate) sha256: Option<[u8; 32]>,
}

/// Where a body goes.
pub(crate) struct Destination {
    pub(crate) file: File,
    /// Bytes before it in the file.
    pub(crate) offset: u64,
    /// Present where several uploads may aim at the same bytes.
    pub(crate) claim: Option<Arc<PartClaim>>,
    pub(crate) with_sha256: bool,
}

struct Sink {
    destination: Destination,
    written: u64,
    md5: Md5,
    sha256: Option<Sha256>,
}

impl Sink {
    fn write(&mut self, block: &[u8]) -> Result<(), ReceiveError> {
        self.md5.update(block);
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(block);
        }
        let held = self.destination.claim.as_deref().map(PartClaim::hold).transpose()?;
        self.destination.file.write_all_at(block, self.destination.offset + self.written)?;
        drop(held);
        self.written += block.len() as u64;
        Ok(())
    }
}

/// Writes a body of exactly `declared` bytes to its destination. What was written of a body that is
/// refused stays in the file: the caller throws it away.
pub(crate) async fn receive(
    body: Body,
    declared: u64,
    destination: Destination,
) -> Result<Received, ReceiveError> {
    let sha256 = destination.with_sha256.then(Sha256::new);
    let mut sink = Sink { destination, written: 0, md5: Md5::new(), sha256 };
    let mut stream = body.into_data_stream();
    let mut block = BytesMut::with_capacity(BLOCK_BYTES);
    let mut received = 0u64;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|source| ReceiveError::Broken { received, declared, source })?;
        received += chunk.len() as u64;
        if received > declared {
            return Err(ReceiveError::TooLong { declared });
        }
        block.extend_from_slice(&chunk);
        if block.len() >= BLOCK_BYTES {
            (sink, block) = write_blocking(sink, block).await?;
        }
    }
    if received < declared {
        return Err(ReceiveError::Truncated { received, declared });
    }
    (sink, _) = write_blocking(sink, block).await?;
    Ok(Received {
        md5: sink.md5.finalize().into(),
        sha256: sink.sha256.map(|sha256| sha256.finalize().into()),
    })
}

async fn write_blocking(mut sink: Sink, mut block: BytesMut) -> Result<(Sink, BytesMut), ReceiveError> {
    tokio::task::spawn_blocking(move || {
        sink.write(&block)?;
        block.clear();
        Ok((sink, block))
    })
    .await
    .map_err(|_| ReceiveError::Stopping)?
}
