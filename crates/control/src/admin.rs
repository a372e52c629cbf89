//! What the command line asks of the server beyond the client's API.
//!
//! The same authentication stands before it, and only users pass: a container has no business with the history of
//! Volumes or with what takes the server's space.

mod contents;
mod models;
mod timeline;
mod volumes;

use std::pin::Pin;

use futures::Stream;
use homeport_proto::admin as pb;
use tonic::{Request, Response, Status};

use crate::auth::{Caller, Identity};
use crate::control::Control;

/// The service. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct AdminService(pub(crate) Control);

/// An answer in parts.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What a user asks for; nobody else is heard.
fn of_user<T>(request: Request<T>) -> Result<T, Status> {
    match request.extensions().get::<Caller>() {
        Some(Caller { identity: Identity::User { .. }, .. }) => Ok(request.into_inner()),
        Some(_) => Err(Status::permission_denied("this is for users with a token, not for containers")),
        None => Err(Status::unauthenticated("the request passed no authentication")),
    }
}

macro_rules! service {
    (
        unary { $($unary:ident($request:ty) -> $answer:ty;)* }
        streaming { $($streaming:ident($stream_request:ty) -> $part:ty as $stream:ident;)* }
    ) => {
        #[tonic::async_trait]
        impl pb::admin_server::Admin for AdminService {
            $(
                async fn $unary(&self, request: Request<$request>) -> Result<Response<$answer>, Status> {
                    let (service, request) = (self.clone(), of_user(request)?);
                    // A change that has begun comes to its end, also when nobody waits for it any more.
                    let work = tokio::spawn(async move { AdminService::$unary(&service, request).await });
                    work.await.map_err(|error| Status::unavailable(error.to_string()))?.map(Response::new)
                }
            )*
            $(
                type $stream = Answers<$part>;

                async fn $streaming(
                    &self,
                    request: Request<$stream_request>,
                ) -> Result<Response<Answers<$part>>, Status> {
                    AdminService::$streaming(self, of_user(request)?).await.map(Response::new)
                }
            )*
        }
    };
}

service! {
    unary {
        volume_list(pb::VolumeListRequest) -> pb::VolumeListResponse;
        volume_log(pb::VolumeLogRequest) -> pb::VolumeLogResponse;
        volume_restore(pb::VolumeRestoreRequest) -> pb::VolumeVersionAnswer;
        volume_tag(pb::VolumeTagRequest) -> pb::VolumeVersionAnswer;
        volume_fork(pb::VolumeForkRequest) -> pb::VolumeVersionAnswer;
        volume_configure(pb::VolumeConfigureRequest) -> pb::VolumeSettings;
        volume_put_model(pb::VolumePutModelRequest) -> pb::VolumeVersionAnswer;
        disk_usage(pb::DiskUsageRequest) -> pb::DiskUsageResponse;
        app_timeline(pb::AppTimelineRequest) -> pb::AppTimelineResponse;
    }
    streaming {
        volume_diff(pb::VolumeDiffRequest) -> pb::VolumeDiffEntry as VolumeDiffStream;
        collect_garbage(pb::CollectGarbageRequest) -> pb::CollectGarbageProgress as CollectGarbageStream;
        check_store(pb::CheckStoreRequest) -> pb::CheckStoreProgress as CheckStoreStream;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(identity: Option<Identity>) -> Request<()> {
        let mut request = Request::new(());
        if let Some(identity) = identity {
            request.extensions_mut().insert(Caller {
                identity,
                client_version: String::new(),
                idempotency_key: None,
                authority: String::new(),
            });
        }
        request
    }

    #[test]
    fn only_users_are_heard() {
        let code = |identity| of_user(from(identity)).map_err(|status| status.code());
        assert_eq!(code(Some(Identity::User { token_id: "ak-1".into() })), Ok(()));
        let container = Identity::Task { task_id: "ta-1".into() };
        assert_eq!(code(Some(container)), Err(tonic::Code::PermissionDenied));
        assert_eq!(code(Some(Identity::Worker)), Err(tonic::Code::PermissionDenied));
        assert_eq!(code(None), Err(tonic::Code::Unauthenticated));
    }
}
