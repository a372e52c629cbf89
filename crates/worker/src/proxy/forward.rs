//! One request of a container on its way to control and back.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tonic::Status;

use crate::error::sentence;

use super::allow::{self, Scope};
use super::in_process::{ControlBody, ControlService};
use super::{CONNECTION_WINDOW, MAX_FRAME, SEND_BUFFER, STREAM_WINDOW};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A silent connection to control is probed this often, and given up when a probe isn't answered in this time.
const PROBE: Duration = Duration::from_secs(20);

const WORKER: HeaderName = HeaderName::from_static("x-homeport-worker");
const AUTHORITY: HeaderName = HeaderName::from_static("x-homeport-authority");
const TASK: HeaderName = HeaderName::from_static("x-homeport-task");
const STEP: HeaderName = HeaderName::from_static("x-homeport-step");

/// Headers that say something about one connection only, or that belong to the server side of this hop.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
];

/// Headers by which a sender would claim to be somebody. The connection decides who a container is.
const CREDENTIALS: &[&str] = &["authorization", "cookie"];
const CREDENTIAL_PREFIXES: &[&str] = &["x-homeport-", "x-modal-token-", "x-modal-task-", "x-modal-auth-"];

pub(super) type Body = Either<Incoming, ControlBody>;

/// Whom control shall take the requests of a container for.
#[derive(Debug, Clone)]
pub(crate) enum Identity {
    /// The id of a task.
    Task(String),
    /// The id of a build step.
    Step(String),
}

/// The way to control for one container.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    scheme: Scheme,
    authority: Authority,
    credential: HeaderValue,
    identity: (HeaderName, HeaderValue),
    way: Way,
}

#[derive(Debug, Clone)]
enum Way {
    /// Control is in this process.
    InProcess(ControlService),
    /// By connections of the container's own: one that uses up the streams of a connection stops only itself.
    Network(Box<Connections>),
}

#[derive(Debug, Clone)]
struct Connections {
    http1: Client<HttpConnector, Incoming>,
    http2: Client<HttpConnector, Incoming>,
}

impl Upstream {
    /// `control` is control's base address (`http://host:port`), `service` control itself if it is in this process,
    /// `credential` the worker's own. `None` when the identity isn't valid as a header value.
    pub(crate) fn new(
        control: &ControlAddress,
        service: Option<&ControlService>,
        credential: &HeaderValue,
        identity: Identity,
    ) -> Option<Self> {
        let identity = match identity {
            Identity::Task(id) => (TASK, HeaderValue::try_from(id).ok()?),
            Identity::Step(id) => (STEP, HeaderValue::try_from(id).ok()?),
        };
        let way = service.map_or_else(Way::network, |service| Way::InProcess(service.clone()));
        let (scheme, authority) = (control.scheme.clone(), control.authority.clone());
        Some(Self { scheme, authority, credential: credential.clone(), identity, way })
    }

    fn uri(&self, path: PathAndQuery) -> Result<Uri, http::uri::InvalidUriParts> {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path);
        Uri::from_parts(parts)
    }
}

impl Way {
    fn network() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let http1 =
            Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector.clone());
        let http2 = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_only(true)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_max_frame_size(MAX_FRAME)
            .http2_max_send_buf_size(SEND_BUFFER)
            .http2_keep_alive_interval(PROBE)
            .http2_keep_alive_timeout(PROBE)
            .build(connector);
        Self::Network(Box::new(Connections { http1, http2 }))
    }
}

/// Control's address, checked.
#[derive(Debug, Clone)]
pub(crate) struct ControlAddress {
    scheme: Scheme,
    authority: Authority,
}

impl ControlAddress {
    /// Reads a base address such as `http://127.0.0.1:7777`. `None` unless it is `http` with a host and without a path.
    pub(crate) fn parse(address: &str) -> Option<Self> {
        let uri: Uri = address.parse().ok()?;
        let plain = uri.scheme() == Some(&Scheme::HTTP) && uri.path() == "/" && uri.query().is_none();
        plain.then_some(Self { scheme: Scheme::HTTP, authority: uri.authority()?.clone() })
    }
}

/// Forwards `request`, or answers it here when it isn't allowed or control can't be reached.
pub(super) async fn answer(upstream: &Upstream, scope: Scope, request: Request<Incoming>) -> Response<Body> {
    let is_grpc = request.method() == Method::POST && has_grpc_content(request.headers());
    let path = request.uri().path();
    let allowed = if is_grpc { allow::grpc(scope, path) } else { allow::plain(request.method(), path) };
    if !allowed {
        return refusal(is_grpc, request.method(), path);
    }
    let Some(path) = request.uri().path_and_query().cloned() else {
        return refusal(is_grpc, request.method(), path);
    };
    let Ok(uri) = upstream.uri(path) else {
        return refusal(is_grpc, request.method(), request.uri().path());
    };
    let (mut head, body) = request.into_parts();
    rewrite(&mut head, upstream, uri, is_grpc);
    let request = Request::from_parts(head, body);
    let answer = match &upstream.way {
        Way::InProcess(service) => return service.answer(request).await.map(Either::Right),
        Way::Network(connections) if is_grpc => connections.http2.request(request).await,
        Way::Network(connections) => connections.http1.request(request).await,
    };
    match answer {
        Ok(mut response) => {
            remove_hop_by_hop(response.headers_mut());
            response.map(Either::Left)
        }
        Err(error) => {
            tracing::debug!(error = %sentence(&error), "control could not be reached for a container");
            unreachable_control(is_grpc, &sentence(&error))
        }
    }
}

fn has_grpc_content(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/grpc"))
}

fn rewrite(head: &mut http::request::Parts, upstream: &Upstream, uri: Uri, is_grpc: bool) {
    let authority = head
        .uri
        .authority()
        .and_then(|authority| HeaderValue::try_from(authority.as_str()).ok())
        .or_else(|| head.headers.get(header::HOST).cloned());
    remove_hop_by_hop(&mut head.headers);
    if !is_grpc {
        head.headers.remove(header::TE);
    }
    let claims: Vec<HeaderName> = head.headers.keys().filter(|name| is_claim(name)).cloned().collect();
    for name in claims {
        head.headers.remove(name);
    }
    head.headers.insert(WORKER, upstream.credential.clone());
    head.headers.insert(upstream.identity.0.clone(), upstream.identity.1.clone());
    if let Some(authority) = authority {
        head.headers.insert(AUTHORITY, authority);
    }
    head.uri = uri;
    head.version = if is_grpc { Version::HTTP_2 } else { Version::HTTP_11 };
    head.extensions.clear();
}

fn is_claim(name: &HeaderName) -> bool {
    let name = name.as_str();
    CREDENTIALS.contains(&name) || CREDENTIAL_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // What `Connection` lists belongs to the hop as well.
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in listed {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(*name);
    }
}

fn refusal(is_grpc: bool, method: &Method, path: &str) -> Response<Body> {
    if is_grpc {
        return grpc_answer(Status::permission_denied(format!("a container may not call {path}")));
    }
    plain_answer(StatusCode::FORBIDDEN, format!("a container may not request {method} {path}\n"))
}

fn unreachable_control(is_grpc: bool, why: &str) -> Response<Body> {
    let message = format!("the control plane can't be reached: {why}");
    if is_grpc {
        return grpc_answer(Status::unavailable(message));
    }
    plain_answer(StatusCode::SERVICE_UNAVAILABLE, message + "\n")
}

/// An answer that is only trailers, as gRPC prescribes for a call that fails before its first message.
fn grpc_answer(status: Status) -> Response<Body> {
    status.into_http::<Full<Bytes>>().map(whole)
}

fn whole(body: Full<Bytes>) -> Body {
    Either::Right(body.map_err(|never| match never {}).boxed_unsync())
}

fn plain_answer(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(whole(Full::new(Bytes::from(text))));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_address_must_be_plain_http_without_a_path() {
        assert!(ControlAddress::parse("http://127.0.0.1:7777").is_some());
        assert!(ControlAddress::parse("http://host:1/").is_some());
        assert!(ControlAddress::parse("https://host:1").is_none());
        assert!(ControlAddress::parse("http://host:1/x").is_none());
        assert!(ControlAddress::parse("host:1").is_none());
    }

    #[test]
    fn claims_of_identity_are_recognised() {
        for name in ["authorization", "cookie", "x-modal-token-secret", "x-homeport-task", "x-modal-task-id"]
        {
            assert!(is_claim(&HeaderName::from_static(name)), "{name}");
        }
        assert!(!is_claim(&HeaderName::from_static("x-modal-client-version")));
    }

    #[test]
    fn headers_that_connection_lists_do_not_pass() {
        let mut headers = HeaderMap::new();
        headers.insert("connection", HeaderValue::from_static("close, X-Private"));
        headers.insert("x-private", HeaderValue::from_static("1"));
        headers.insert("x-other", HeaderValue::from_static("1"));
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-other"]);
    }
}
