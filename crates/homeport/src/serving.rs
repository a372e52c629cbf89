//! Accepting connections: HTTP/1.1 and HTTP/2 without TLS on one port, told apart by their first bytes.

use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Clients send messages of several MiB on many streams of one connection.
const CONNECTION_WINDOW: u32 = 64 << 20;
const STREAM_WINDOW: u32 = 16 << 20;
const FRAME_BYTES: u32 = 1 << 20;
/// One client process may have thousands of calls under way.
const STREAMS: u32 = 100_000;
/// Calls that a client may cancel before they were taken up: a map that is interrupted cancels all at once.
const CANCELLED_STREAMS: usize = 10_000;

/// Until a connection has to have sent the head of its request.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// For requests under way when the server stops.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// Serves until `stop`, then lets requests under way end for a moment.
pub(crate) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(CANCELLED_STREAMS)
        .max_local_error_reset_streams(CANCELLED_STREAMS);
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // The system's trouble, such as no descriptors left, or one peer's: neither ends the server.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot send small messages at once");
        }
        let service = TowerToHyperService::new(router.clone());
        let connection = builder.serve_connection_with_upgrades::<_, _, axum::body::Body>(
            TokioIo::new(stream),
            hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
                hyper::service::Service::call(&service, request)
            }),
        );
        let connection = connections.watch(connection.into_owned());
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "a connection broke off");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(END_PATIENCE, connections.shutdown()).await.is_err() {
        tracing::debug!("connections are left; they are cut");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use hyper_util::client::legacy::Client;

    type Body = axum::body::Body;

    #[tokio::test]
    async fn one_port_speaks_both_versions_of_http_until_it_is_stopped() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let router = Router::new().route("/", get(async || "hello"));
        let server = tokio::spawn(serve(listener, router, stop.clone()));

        for version in [hyper::Version::HTTP_11, hyper::Version::HTTP_2] {
            let client = Client::builder(TokioExecutor::new())
                .http2_only(version == hyper::Version::HTTP_2)
                .build_http::<Body>();
            let answer = client.get(format!("http://{address}/").parse().unwrap()).await.unwrap();
            assert_eq!((answer.version(), answer.status().as_u16()), (version, 200));
        }
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), server).await.unwrap().unwrap();
        tokio::net::TcpStream::connect(address).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_request_that_does_not_end_is_cut_at_the_stop() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let began = std::sync::Arc::new(tokio::sync::Notify::new());
        let notify = std::sync::Arc::clone(&began);
        let router = Router::new().route(
            "/",
            get(async move || {
                notify.notify_one();
                std::future::pending::<()>().await;
            }),
        );
        let server = tokio::spawn(serve(listener, router, stop.clone()));
        let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
        let request = tokio::spawn(client.get(format!("http://{address}/").parse().unwrap()));
        began.notified().await;
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), server).await.unwrap().unwrap();
        request.abort();
    }
}
