//! The listener of one container: a reverse proxy to the control plane.
//!
//! A process in a container holds no credential. Its identity is the connection: the worker opens a listener inside
//! the container's network namespace, serves it here, lets through only what [`allow`] lists, and names the order
//! that the container belongs to on every request. The listener dies with the container.
//!
//! HTTP/1.1 and HTTP/2 with prior knowledge are served on the same port. Bodies and trailers are streamed both ways
//! and never gathered. There are no idle time limits, because a client's long poll may stay silent for minutes.
//! Absent: TLS (the listener is on a loopback address that only the container reaches) and protocol upgrades.

mod allow;
mod forward;
mod in_process;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use allow::Scope;
pub(crate) use forward::{ControlAddress, Identity, Upstream};
pub use in_process::ControlService;

/// Flow control windows of HTTP/2 connections, on both sides: payloads are large and the path is local.
const CONNECTION_WINDOW: u32 = 32 << 20;
const STREAM_WINDOW: u32 = 8 << 20;
const MAX_FRAME: u32 = 1 << 20;
const SEND_BUFFER: usize = 4 << 20;

/// Streams that one HTTP/2 connection of a container may have open.
const MAX_STREAMS: u32 = 4096;
/// Connections that one container may have open; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 1024;
/// Pause after a failed `accept`, which happens when the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A running proxy. Dropping it closes the listener and all of its connections.
#[derive(Debug)]
pub(crate) struct Proxy {
    stop: CancellationToken,
}

impl Proxy {
    /// Starts to serve `listener`. Must be called within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// When the socket can't be registered with the runtime.
    pub(crate) fn start(
        listener: std::net::TcpListener,
        upstream: Upstream,
        scope: Scope,
    ) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let stop = CancellationToken::new();
        let service = Arc::new(Service { upstream, scope });
        tokio::spawn(stop.clone().run_until_cancelled_owned(accept(listener, service)));
        Ok(Self { stop })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[derive(Debug)]
struct Service {
    upstream: Upstream,
    scope: Scope,
}

async fn accept(listener: TcpListener, service: Arc<Service>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Dropped with this future: then all connections end.
    let mut connections = JoinSet::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let service = Arc::clone(&service);
                connections.spawn(async move {
                    serve(stream, service).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a container's connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, service: Arc<Service>) {
    // Small requests must not wait for acknowledgements; without the option they are only slower.
    let _ = stream.set_nodelay(true);
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http2()
        .timer(TokioTimer::new())
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_send_buf_size(SEND_BUFFER)
        .max_concurrent_streams(MAX_STREAMS);
    let connection =
        server.serve_connection(
            TokioIo::new(stream),
            service_fn(move |request| {
                let service = Arc::clone(&service);
                async move {
                    Ok::<_, Infallible>(forward::answer(&service.upstream, service.scope, request).await)
                }
            }),
        );
    if let Err(error) = connection.await {
        tracing::debug!(error, "a container's connection ended");
    }
}

#[cfg(test)]
mod tests;
