//! A request body on its way to disk: piece by piece, hashed, never more than a piece in memory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use axum::body::{Body, BodyDataStream};
use bytes::BytesMut;
use futures::StreamExt;
use md5::{Digest, Md5};
use sha2::Sha256;

use crate::claim::PartClaim;

/// What is gathered before the disk is asked. Also bounds the memory of an upload.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes of a refused body that are still read.
const MOST_DRAINED: usize = 64 << 20;

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

/// How long a body may be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Length {
    Exactly(u64),
    AtMost(u64),
}

impl Length {
    fn limit(self) -> u64 {
        match self {
            Length::Exactly(bytes) | Length::AtMost(bytes) => bytes,
        }
    }
}

/// Where the pieces of a body go, in their order. Blocks on the disk.
pub(crate) trait Sink: Send + 'static {
    fn write(&mut self, piece: &[u8]) -> Result<(), ReceiveError>;
}

/// What arrived.
pub(crate) struct Received {
    pub(crate) md5: [u8; 16],
    /// Only if it was asked for.
    pub(crate) sha256: Option<[u8; 32]>,
}

/// A place in a file.
pub(crate) struct Destination {
    pub(crate) file: File,
    /// Bytes before it in the file.
    pub(crate) offset: u64,
    /// Present where several uploads may aim at the same bytes.
    pub(crate) claim: Option<Arc<PartClaim>>,
    pub(crate) with_sha256: bool,
}

struct FileSink {
    destination: Destination,
    written: u64,
    md5: Md5,
    sha256: Option<Sha256>,
}

impl Sink for FileSink {
    fn write(&mut self, piece: &[u8]) -> Result<(), ReceiveError> {
        self.md5.update(piece);
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(piece);
        }
        let held = self.destination.claim.as_deref().map(PartClaim::hold).transpose()?;
        self.destination.file.write_all_at(piece, self.destination.offset + self.written)?;
        drop(held);
        self.written += piece.len() as u64;
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
    let sink = FileSink { destination, written: 0, md5: Md5::new(), sha256 };
    let sink = pour(body, Length::Exactly(declared), sink).await?;
    Ok(Received {
        md5: sink.md5.finalize().into(),
        sha256: sink.sha256.map(|sha256| sha256.finalize().into()),
    })
}

/// Gives a body to a sink in pieces of a megabyte. The sink comes back when it has all of it.
pub(crate) async fn pour<S: Sink>(body: Body, length: Length, mut sink: S) -> Result<S, ReceiveError> {
    let declared = length.limit();
    let mut stream = body.into_data_stream();
    let mut piece = BytesMut::new();
    let mut received = 0u64;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|source| ReceiveError::Broken { received, declared, source })?;
        received += chunk.len() as u64;
        if received > declared {
            return Err(ReceiveError::TooLong { declared });
        }
        piece.extend_from_slice(&chunk);
        if piece.len() >= PIECE_BYTES {
            (sink, piece) = match write_blocking(sink, piece).await {
                Ok(written) => written,
                Err(error) => {
                    drain(&mut stream).await;
                    return Err(error);
                }
            };
        }
    }
    if let Length::Exactly(declared) = length
        && received < declared
    {
        return Err(ReceiveError::Truncated { received, declared });
    }
    if !piece.is_empty() {
        (sink, _) = write_blocking(sink, piece).await?;
    }
    Ok(sink)
}

/// Reads on what isn't wanted any more, so that its sender comes to hear why. One that is cut off in the middle of its
/// body sees a closed connection, or waits for ever for somebody to read.
pub(crate) async fn drain(stream: &mut BodyDataStream) {
    let mut left = MOST_DRAINED;
    while let Some(Ok(chunk)) = stream.next().await {
        match left.checked_sub(chunk.len()) {
            Some(less) => left = less,
            None => return,
        }
    }
}

async fn write_blocking<S: Sink>(mut sink: S, mut piece: BytesMut) -> Result<(S, BytesMut), ReceiveError> {
    tokio::task::spawn_blocking(move || {
        sink.write(&piece)?;
        piece.clear();
        Ok((sink, piece))
    })
    .await
    .map_err(|_| ReceiveError::Stopping)?
}
