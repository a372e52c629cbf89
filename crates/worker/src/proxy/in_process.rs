//! Control in the process of its worker: no connection lies between a container's listener and it.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Incoming};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt};

pub(super) type ControlBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// What control answers to requests, in the same process. Cheap to clone.
#[derive(Clone)]
pub struct ControlService(BoxCloneSyncService<Request<Incoming>, Response<ControlBody>, Infallible>);

impl std::fmt::Debug for ControlService {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ControlService")
    }
}

impl ControlService {
    /// Wraps the service that control's port serves.
    pub fn new<S, B>(service: S) -> Self
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let boxed = |body: B| body.map_err(std::io::Error::other).boxed_unsync();
        Self(BoxCloneSyncService::new(service.map_response(move |response: Response<B>| response.map(boxed))))
    }

    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<ControlBody> {
        match self.0.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}
