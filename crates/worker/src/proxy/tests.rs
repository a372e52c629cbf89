//! The proxy between a real HTTP client and a real HTTP server on loopback.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::header::HeaderValue;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_stream::wrappers::ReceiverStream;

use super::{ControlAddress, Identity, Proxy, Scope, Upstream};

type Body = UnsyncBoxBody<Bytes, Infallible>;
type TestClient = Client<HttpConnector, Body>;

const GET_INPUTS: &str = "/modal.client.ModalClient/FunctionGetInputs";

/// Stands for control: counts requests, echoes bodies and says in its headers what it saw.
struct Server {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    /// Told when a request with the header `hang`, which is never answered, is given up.
    given_up: Arc<Notify>,
}

struct NotifyOnDrop(Arc<Notify>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

async fn server() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (requests, given_up) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let server = Server { address, requests: Arc::clone(&requests), given_up: Arc::clone(&given_up) };
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (requests, given_up) = (Arc::clone(&requests), Arc::clone(&given_up));
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    requests.fetch_add(1, Ordering::SeqCst);
                    let given_up = Arc::clone(&given_up);
                    async move {
                        if request.headers().contains_key("hang") {
                            let _given_up = NotifyOnDrop(given_up);
                            std::future::pending::<()>().await;
                        }
                        Ok::<_, Infallible>(echo(request))
                    }
                });
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    server
}

fn echo(request: Request<Incoming>) -> Response<Body> {
    let mut seen = Response::builder().header("seen-version", format!("{:?}", request.version()));
    for (name, value) in request.headers() {
        seen = seen.header(format!("seen-{name}"), value);
    }
    if request.uri().path() == "/blobs/large" {
        let block = Bytes::from(vec![7_u8; 1 << 20]);
        let blocks = futures::stream::iter((0..64).map(move |_| Ok(Frame::data(block.clone()))));
        return seen.body(StreamBody::new(blocks).boxed_unsync()).unwrap();
    }
    let is_grpc = request.headers().get("content-type").is_some_and(|kind| kind == "application/grpc");
    let (sender, frames) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let mut body = request.into_body();
        while let Some(Ok(frame)) = body.frame().await {
            if sender.send(Ok(frame)).await.is_err() {
                return;
            }
        }
        if is_grpc {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            trailers.insert("grpc-message", HeaderValue::from_static("fine"));
            let _ = sender.send(Ok(Frame::trailers(trailers))).await;
        }
    });
    seen.body(StreamBody::new(ReceiverStream::new(frames)).boxed_unsync()).unwrap()
}

/// A proxy to `control`, and its address.
fn proxy(control: SocketAddr, scope: Scope) -> (Proxy, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let control = ControlAddress::parse(&format!("http://{control}")).unwrap();
    let credential = HeaderValue::from_static("worker-word");
    let upstream = Upstream::new(&control, None, &credential, Identity::Task("ta-1".into())).unwrap();
    (Proxy::start(listener, upstream, scope).unwrap(), address)
}

fn client(http2: bool) -> TestClient {
    Client::builder(TokioExecutor::new()).http2_only(http2).build(HttpConnector::new())
}

fn grpc(address: SocketAddr, path: &str, body: Body) -> Request<Body> {
    Request::builder()
        .method(Method::POST)
        .uri(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("x-modal-client-version", "1.6.4")
        .header("x-modal-token-id", "ak-x")
        .header("x-modal-token-secret", "as-x")
        .header("authorization", "Bearer x")
        .header("x-homeport-task", "ta-other")
        .header("x-homeport-worker", "guessed")
        .body(body)
        .unwrap()
}

fn empty() -> Body {
    Empty::new().boxed_unsync()
}

#[tokio::test]
async fn grpc_stream_passes_both_ways_at_once_with_trailers_and_the_identity_of_the_task() {
    let server = server().await;
    let (_proxy, address) = proxy(server.address, Scope::Task);
    let (sender, frames) = tokio::sync::mpsc::channel(1);
    let body =
        StreamBody::new(ReceiverStream::new(frames).map(|data: Bytes| Ok(Frame::data(data)))).boxed_unsync();
    sender.send(Bytes::from_static(b"first")).await.unwrap();
    let response = client(true).request(grpc(address, GET_INPUTS, body)).await.unwrap();

    assert_eq!(response.status(), StatusCode::OK);
    let headers = response.headers();
    assert_eq!(headers["seen-version"], "HTTP/2.0");
    assert_eq!(headers["seen-te"], "trailers");
    assert_eq!(headers["seen-x-homeport-task"], "ta-1");
    assert_eq!(headers["seen-x-homeport-worker"], "worker-word");
    assert_eq!(headers["seen-x-homeport-authority"], address.to_string());
    assert_eq!(headers["seen-x-modal-client-version"], "1.6.4");
    for gone in ["seen-x-modal-token-id", "seen-x-modal-token-secret", "seen-authorization"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }

    // The answer to one message arrives before the next is sent: nothing is gathered on the way.
    let mut body = response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
    sender.send(Bytes::from_static(b"second")).await.unwrap();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "second");
    drop(sender);
    let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers["grpc-message"], "fine");
}

#[tokio::test]
async fn method_that_is_not_listed_is_denied_by_name_and_never_reaches_control() {
    let server = server().await;
    let (_proxy, address) = proxy(server.address, Scope::Task);
    for path in ["/modal.client.ModalClient/AppDeploy", "/homeport.worker.v1.WorkerLink/Attach"] {
        let response = client(true).request(grpc(address, path, empty())).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert_eq!(response.headers()["grpc-status"], "7");
        let message = response.headers()["grpc-message"].to_str().unwrap();
        assert!(message.contains(path.rsplit('/').next().unwrap()), "{message}");
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
    let plain = Request::get(format!("http://{address}/metrics")).body(empty()).unwrap();
    assert_eq!(client(false).request(plain).await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(server.requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn build_reaches_the_hub_but_no_method() {
    let server = server().await;
    let (_proxy, address) = proxy(server.address, Scope::Build);
    let response = client(true).request(grpc(address, GET_INPUTS, empty())).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "7");
    let file =
        Request::get(format!("http://{address}/org/name/resolve/main/config.json")).body(empty()).unwrap();
    let response = client(false).request(file).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["seen-version"], "HTTP/1.1");
    assert_eq!(response.headers()["seen-x-homeport-authority"], address.to_string());
}

#[tokio::test]
async fn large_bodies_pass_in_both_protocols() {
    let server = server().await;
    let (_proxy, address) = proxy(server.address, Scope::Task);
    for http2 in [false, true] {
        let download = Request::get(format!("http://{address}/blobs/large")).body(empty()).unwrap();
        let body = client(http2).request(download).await.unwrap().into_body();
        let bytes = body.collect().await.unwrap().to_bytes();
        assert_eq!(bytes.len(), 64 << 20);

        let data = Bytes::from(vec![9_u8; 48 << 20]);
        let upload = Request::put(format!("http://{address}/blobs/bl-1?sig=a%2Fb"))
            .body(Full::new(data.clone()).boxed_unsync())
            .unwrap();
        let back = client(http2).request(upload).await.unwrap().into_body();
        assert!(back.collect().await.unwrap().to_bytes() == data);
    }
}

#[tokio::test]
async fn unreachable_control_is_unavailable() {
    // Bound and dropped: nobody listens there.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (_proxy, address) = proxy(nobody, Scope::Task);
    let response = client(true).request(grpc(address, GET_INPUTS, empty())).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "14");
    let plain = Request::get(format!("http://{address}/blobs/bl-1")).body(empty()).unwrap();
    assert_eq!(client(false).request(plain).await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn dropped_proxy_closes_its_listener_and_connections() {
    let server = server().await;
    let (proxy, address) = proxy(server.address, Scope::Task);
    let (sender, frames) = tokio::sync::mpsc::channel(1);
    let body =
        StreamBody::new(ReceiverStream::new(frames).map(|data: Bytes| Ok(Frame::data(data)))).boxed_unsync();
    sender.send(Bytes::from_static(b"first")).await.unwrap();
    let response = client(true).request(grpc(address, GET_INPUTS, body)).await.unwrap();
    drop(proxy);
    let rest = tokio::time::timeout(Duration::from_secs(5), response.into_body().collect()).await;
    assert!(rest.expect("the connection stays open").is_err());
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn request_that_its_sender_gives_up_is_given_up_at_control() {
    let server = server().await;
    let (_proxy, address) = proxy(server.address, Scope::Task);
    let mut long_poll = grpc(address, GET_INPUTS, empty());
    long_poll.headers_mut().insert("hang", HeaderValue::from_static("1"));
    let client = client(true);
    let waiting = tokio::spawn(async move { client.request(long_poll).await });
    while server.requests.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // As when the process that waits for an input is killed.
    waiting.abort();
    tokio::time::timeout(Duration::from_secs(5), server.given_up.notified())
        .await
        .expect("control still waits");
}
