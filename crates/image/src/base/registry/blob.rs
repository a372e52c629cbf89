//! A blob as it comes from the network, for code that reads and blocks.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use oci_client::errors::DigestError;
use tokio::runtime::Handle;

use crate::base::Log;

/// How often a long download shows in the log.
const PROGRESS: Duration = Duration::from_secs(5);

/// Why a blob couldn't be read to its end.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The bytes aren't those of the digest, or not as many as the manifest says.
    Digest(String),
    /// The connection broke.
    Broken(String),
    /// Nobody wants it any more.
    Cancelled,
}

/// The bytes of one blob, checked as they come.
pub(super) struct Blob {
    stream: BoxStream<'static, io::Result<Bytes>>,
    chunk: Bytes,
    size: u64,
    taken: u64,
    ended: bool,
    fault: Option<Fault>,
    handle: Handle,
    cancelled: Arc<AtomicBool>,
    log: Log,
    last_said: Instant,
}

impl Blob {
    /// `stream` checks the digest and fails at its end if it's wrong; `size` is what the manifest says.
    pub(super) fn new(
        stream: BoxStream<'static, io::Result<Bytes>>,
        size: u64,
        handle: Handle,
        cancelled: Arc<AtomicBool>,
        log: Log,
    ) -> Self {
        Self {
            stream,
            chunk: Bytes::new(),
            size,
            taken: 0,
            ended: false,
            fault: None,
            handle,
            cancelled,
            log,
            last_said: Instant::now(),
        }
    }

    /// What went wrong while it was read. A blob without a fault is right if it was read to its end.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault.clone()
    }

    fn stop(&mut self, fault: Fault) -> io::Error {
        self.ended = true;
        let message = format!("{fault:?}");
        self.fault.get_or_insert(fault);
        io::Error::other(message)
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(self.stop(Fault::Cancelled));
        }
        match self.handle.block_on(self.stream.next()) {
            Some(Ok(chunk)) => {
                self.taken += chunk.len() as u64;
                self.chunk = chunk;
                if self.taken > self.size {
                    return Err(self.stop(Fault::Digest(format!("more than {} bytes", self.size))));
                }
                self.say_progress();
                Ok(())
            }
            Some(Err(error)) => {
                let wrong = error.get_ref().and_then(|cause| cause.downcast_ref::<DigestError>());
                let fault = match wrong {
                    Some(wrong) => Fault::Digest(wrong.to_string()),
                    None => Fault::Broken(error.to_string()),
                };
                Err(self.stop(fault))
            }
            None if self.taken < self.size => {
                let reason = format!("{} of {} bytes came", self.taken, self.size);
                Err(self.stop(Fault::Digest(reason)))
            }
            None => {
                self.ended = true;
                Ok(())
            }
        }
    }

    fn say_progress(&mut self) {
        if self.last_said.elapsed() >= PROGRESS && self.taken < self.size {
            self.last_said = Instant::now();
            (self.log)(&format!("  {:.0} of {:.0} MB", self.taken as f64 / 1e6, self.size as f64 / 1e6));
        }
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() && !self.ended && !buffer.is_empty() {
            self.next_chunk()?;
        }
        let count = buffer.len().min(self.chunk.len());
        buffer[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}
