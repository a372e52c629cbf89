//! The client's API: each method only translates between messages and the parts that decide.

mod app;
mod app_info;
mod autoscaler;
mod blob;
mod call;
mod call_graph;
mod class;
mod container;
mod deployment;
mod environment;
mod function;
mod history;
mod image;
mod image_name;
mod log;
mod mount;
mod network_file_system;
mod output;
mod refused;
mod secret;
mod stream;
mod task;
mod volume;
mod volume_blocks;
mod volume_edit;
mod volume_files;
mod volume_path;
mod volume_upload;
mod workspace;

use std::pin::Pin;

use futures::Stream;
use homeport_proto::client as pb;
use tonic::{Request, Response, Status};

use crate::auth::Caller;
use crate::control::Control;
use crate::registry::RegistryError;

pub(crate) use mount::metadata as mount_metadata;
pub(crate) use refused::feature;

/// An answer in parts.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Seconds that a long poll lasts when the client names no time.
const LONG_POLL: f64 = 55.0;

impl From<RegistryError> for Status {
    fn from(error: RegistryError) -> Self {
        // Clients try again after this one.
        Status::unavailable(format!("the server's database failed: {error}"))
    }
}

fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request
        .extensions()
        .get::<Caller>()
        .cloned()
        .ok_or_else(|| Status::unauthenticated("the request passed no authentication"))
}

fn missing(what: &str, id: &str) -> Status {
    Status::not_found(format!("{what} {id} does not exist on this server"))
}

/// Declares the service: every method hands its message and its caller to the method of the same
/// name of [`Control`].
macro_rules! service {
    (
        unary { $($unary:ident($request:ty) -> $answer:ty;)* }
        streaming { $($streaming:ident($stream_request:ty) -> $part:ty as $stream:ident;)* }
    ) => {
        #[tonic::async_trait]
        impl pb::modal_client_server::ModalClient for Control {
            $(
                async fn $unary(&self, request: Request<$request>) -> Result<Response<$answer>, Status> {
                    let caller = caller(&request)?;
                    Control::$unary(self, &caller, request.into_inner()).await.map(Response::new)
                }
            )*
            $(
                type $stream = Answers<$part>;

                async fn $streaming(
                    &self,
                    request: Request<$stream_request>,
                ) -> Result<Response<Answers<$part>>, Status> {
                    let caller = caller(&request)?;
                    Control::$streaming(self, &caller, request.into_inner()).map(Response::new)
                }
            )*
        }
    };
}

service! {
    unary {
        client_hello(()) -> pb::ClientHelloResponse;
        environment_get_or_create(pb::EnvironmentGetOrCreateRequest) -> pb::EnvironmentGetOrCreateResponse;
        environment_create(pb::EnvironmentCreateRequest) -> ();
        environment_delete(pb::EnvironmentDeleteRequest) -> ();
        environment_list(()) -> pb::EnvironmentListResponse;
        environment_update(pb::EnvironmentUpdateRequest) -> pb::EnvironmentListItem;
        token_info_get(pb::TokenInfoGetRequest) -> pb::TokenInfoGetResponse;
        workspace_name_lookup(()) -> pb::WorkspaceNameLookupResponse;
        app_create(pb::AppCreateRequest) -> pb::AppCreateResponse;
        app_fetch_logs(pb::AppFetchLogsRequest) -> pb::AppFetchLogsResponse;
        app_heartbeat(pb::AppHeartbeatRequest) -> ();
        app_client_disconnect(pb::AppClientDisconnectRequest) -> ();
        app_stop(pb::AppStopRequest) -> ();
        app_list(pb::AppListRequest) -> pb::AppListResponse;
        app_get_by_deployment_name(pb::AppGetByDeploymentNameRequest) -> pb::AppGetByDeploymentNameResponse;
        app_get_lifecycle(pb::AppGetLifecycleRequest) -> pb::AppGetLifecycleResponse;
        app_get_objects(pb::AppGetObjectsRequest) -> pb::AppGetObjectsResponse;
        app_get_layout(pb::AppGetLayoutRequest) -> pb::AppGetLayoutResponse;
        app_set_objects(pb::AppSetObjectsRequest) -> ();
        app_deploy(pb::AppDeployRequest) -> pb::AppDeployResponse;
        app_publish(pb::AppPublishRequest) -> pb::AppPublishResponse;
        app_deployment_history(pb::AppDeploymentHistoryRequest) -> pb::AppDeploymentHistoryResponse;
        app_rollback(pb::AppRollbackRequest) -> pb::AppRollbackResponse;
        app_rollover(pb::AppRolloverRequest) -> pb::AppRolloverResponse;
        app_get_or_create(pb::AppGetOrCreateRequest) -> pb::AppGetOrCreateResponse;
        app_get_info(pb::AppGetInfoRequest) -> pb::AppGetInfoResponse;
        app_get_tags(pb::AppGetTagsRequest) -> pb::AppGetTagsResponse;
        app_set_tags(pb::AppSetTagsRequest) -> ();
        task_list(pb::TaskListRequest) -> pb::TaskListResponse;
        task_get_info(pb::TaskGetInfoRequest) -> pb::TaskGetInfoResponse;
        container_stop(pb::ContainerStopRequest) -> pb::ContainerStopResponse;
        function_precreate(pb::FunctionPrecreateRequest) -> pb::FunctionPrecreateResponse;
        function_create(pb::FunctionCreateRequest) -> pb::FunctionCreateResponse;
        function_get(pb::FunctionGetRequest) -> pb::FunctionGetResponse;
        function_bind_params(pb::FunctionBindParamsRequest) -> pb::FunctionBindParamsResponse;
        function_get_serialized(pb::FunctionGetSerializedRequest) -> pb::FunctionGetSerializedResponse;
        function_get_dynamic_concurrency(pb::FunctionGetDynamicConcurrencyRequest)
            -> pb::FunctionGetDynamicConcurrencyResponse;
        function_update_scheduling_params(pb::FunctionUpdateSchedulingParamsRequest)
            -> pb::FunctionUpdateSchedulingParamsResponse;
        function_get_current_stats(pb::FunctionGetCurrentStatsRequest) -> pb::FunctionStats;
        class_create(pb::ClassCreateRequest) -> pb::ClassCreateResponse;
        class_get(pb::ClassGetRequest) -> pb::ClassGetResponse;
        function_map(pb::FunctionMapRequest) -> pb::FunctionMapResponse;
        function_put_inputs(pb::FunctionPutInputsRequest) -> pb::FunctionPutInputsResponse;
        function_finish_inputs(pb::FunctionFinishInputsRequest) -> ();
        function_get_call_graph(pb::FunctionGetCallGraphRequest) -> pb::FunctionGetCallGraphResponse;
        function_get_outputs(pb::FunctionGetOutputsRequest) -> pb::FunctionGetOutputsResponse;
        function_call_cancel(pb::FunctionCallCancelRequest) -> ();
        function_call_from_id(pb::FunctionCallFromIdRequest) -> pb::FunctionCallFromIdResponse;
        function_call_put_data_out(pb::FunctionCallPutDataRequest) -> ();
        container_hello(()) -> ();
        container_heartbeat(pb::ContainerHeartbeatRequest) -> pb::ContainerHeartbeatResponse;
        function_get_inputs(pb::FunctionGetInputsRequest) -> pb::FunctionGetInputsResponse;
        function_put_outputs(pb::FunctionPutOutputsRequest) -> ();
        task_result(pb::TaskResultRequest) -> ();
        mount_put_file(pb::MountPutFileRequest) -> pb::MountPutFileResponse;
        mount_batched_check_existence(pb::MountBatchedCheckExistenceRequest)
            -> pb::MountBatchedCheckExistenceResponse;
        mount_get_or_create(pb::MountGetOrCreateRequest) -> pb::MountGetOrCreateResponse;
        image_from_id(pb::ImageFromIdRequest) -> pb::ImageFromIdResponse;
        image_get_by_tag(pb::ImageGetByTagRequest) -> pb::ImageGetByTagResponse;
        image_publish(pb::ImagePublishRequest) -> pb::ImagePublishResponse;
        image_list_tags(pb::ImageListTagsRequest) -> pb::ImageListTagsResponse;
        image_tag_revisions(pb::ImageTagRevisionsRequest) -> pb::ImageTagRevisionsResponse;
        image_name_delete(pb::ImageNameDeleteRequest) -> ();
        image_get_or_create(pb::ImageGetOrCreateRequest) -> pb::ImageGetOrCreateResponse;
        secret_delete(pb::SecretDeleteRequest) -> ();
        secret_get_info(pb::SecretGetInfoRequest) -> pb::SecretGetInfoResponse;
        secret_get_or_create(pb::SecretGetOrCreateRequest) -> pb::SecretGetOrCreateResponse;
        secret_list(pb::SecretListRequest) -> pb::SecretListResponse;
        secret_update(pb::SecretUpdateRequest) -> ();
        shared_volume_get_or_create(pb::SharedVolumeGetOrCreateRequest) -> pb::SharedVolumeGetOrCreateResponse;
        shared_volume_heartbeat(pb::SharedVolumeHeartbeatRequest) -> ();
        shared_volume_list(pb::SharedVolumeListRequest) -> pb::SharedVolumeListResponse;
        shared_volume_delete(pb::SharedVolumeDeleteRequest) -> ();
        shared_volume_put_file(pb::SharedVolumePutFileRequest) -> pb::SharedVolumePutFileResponse;
        shared_volume_get_file(pb::SharedVolumeGetFileRequest) -> pb::SharedVolumeGetFileResponse;
        shared_volume_list_files(pb::SharedVolumeListFilesRequest) -> pb::SharedVolumeListFilesResponse;
        shared_volume_remove_file(pb::SharedVolumeRemoveFileRequest) -> ();
        blob_create(pb::BlobCreateRequest) -> pb::BlobCreateResponse;
        blob_get(pb::BlobGetRequest) -> pb::BlobGetResponse;
        volume_get_or_create(pb::VolumeGetOrCreateRequest) -> pb::VolumeGetOrCreateResponse;
        volume_get_by_id(pb::VolumeGetByIdRequest) -> pb::VolumeGetByIdResponse;
        volume_heartbeat(pb::VolumeHeartbeatRequest) -> ();
        volume_list(pb::VolumeListRequest) -> pb::VolumeListResponse;
        volume_delete(pb::VolumeDeleteRequest) -> ();
        volume_rename(pb::VolumeRenameRequest) -> ();
        volume_commit(pb::VolumeCommitRequest) -> pb::VolumeCommitResponse;
        volume_reload(pb::VolumeReloadRequest) -> ();
        volume_get_file(pb::VolumeGetFileRequest) -> pb::VolumeGetFileResponse;
        volume_get_file2(pb::VolumeGetFile2Request) -> pb::VolumeGetFile2Response;
        volume_put_files(pb::VolumePutFilesRequest) -> ();
        volume_put_files2(pb::VolumePutFiles2Request) -> pb::VolumePutFiles2Response;
        volume_remove_file(pb::VolumeRemoveFileRequest) -> ();
        volume_remove_file2(pb::VolumeRemoveFile2Request) -> ();
        volume_copy_files(pb::VolumeCopyFilesRequest) -> ();
        volume_copy_files2(pb::VolumeCopyFiles2Request) -> ();
    }
    streaming {
        app_get_logs(pb::AppGetLogsRequest) -> pb::TaskLogsBatch as AppGetLogsStream;
        shared_volume_list_files_stream(pb::SharedVolumeListFilesRequest) -> pb::SharedVolumeListFilesResponse
            as SharedVolumeListFilesStreamStream;
        volume_list_files(pb::VolumeListFilesRequest) -> pb::VolumeListFilesResponse as VolumeListFilesStream;
        volume_list_files2(pb::VolumeListFiles2Request) -> pb::VolumeListFiles2Response as VolumeListFiles2Stream;
        image_join_streaming(pb::ImageJoinStreamingRequest) -> pb::ImageJoinStreamingResponse
            as ImageJoinStreamingStream;
        function_call_get_data_out(pb::FunctionCallGetDataRequest) -> pb::DataChunk as FunctionCallGetDataOutStream;
        function_call_get_data_in(pb::FunctionCallGetDataRequest) -> pb::DataChunk as FunctionCallGetDataInStream;
    }
}
