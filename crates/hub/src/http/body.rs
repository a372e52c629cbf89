//! The bytes of an object as a response body.
//!
//! One piece is read ahead while the one before it is sent. A slow client holds two pieces of
//! memory and an open file, but no thread.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use tokio::task::{JoinHandle, spawn_blocking};

/// Large enough that handing a read to another thread costs next to nothing.
const PIECE_BYTES: u64 = 1024 * 1024;

/// Bytes `start..end` of a file that has them.
pub(super) fn of_file(mut file: File, start: u64, end: u64) -> io::Result<Body> {
    file.seek(SeekFrom::Start(start))?;
    let first = (start < end).then(|| read_piece(file, end - start));
    Ok(Body::from_stream(stream::try_unfold(first, |pending| async move {
        let Some(pending) = pending else {
            return Ok::<_, io::Error>(None);
        };
        let piece = pending.await.map_err(io::Error::other)??;
        let next = (piece.left > 0).then(|| read_piece(piece.file, piece.left));
        Ok(Some((piece.bytes, next)))
    })))
}

struct Piece {
    bytes: Bytes,
    file: File,
    left: u64,
}

fn read_piece(file: File, left: u64) -> JoinHandle<io::Result<Piece>> {
    spawn_blocking(move || {
        let wanted = left.min(PIECE_BYTES);
        let mut bytes = Vec::with_capacity(wanted as usize);
        (&file).take(wanted).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != wanted {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "an object became shorter while it was sent",
            ));
        }
        Ok(Piece { bytes: bytes.into(), file, left: left - wanted })
    })
}
