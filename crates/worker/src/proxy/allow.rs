//! What a container may ask of the control plane. This is the only place that says so.
//!
//! The list holds what the client's code calls from inside a container: the entrypoint, nested calls of functions and
//! classes, blobs, and the files of Volumes and network file systems. Control still judges each request by the task it
//! comes from; the list keeps everything else (deploying, stopping, logs, renaming and deleting a whole Volume, the
//! workers' own service) out of reach.

use http::Method;

/// How much of the control plane a container may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// A task: the client's calls, blobs and the hub.
    Task,
    /// A command of an image build: blobs and the hub.
    Build,
}

const SERVICE: &str = "/modal.client.ModalClient/";

/// Methods of the client's API, sorted.
const METHODS: &[&str] = &[
    "AppGetByDeploymentName",
    "AppGetLayout",
    "AppGetObjects",
    "BlobCreate",
    "BlobGet",
    "ClassGet",
    "ClientHello",
    "ContainerCheckpoint",
    "ContainerHeartbeat",
    "ContainerHello",
    "EnvironmentGetOrCreate",
    "FunctionBindParams",
    "FunctionCallCancel",
    "FunctionCallFromId",
    "FunctionCallGetDataIn",
    "FunctionCallGetDataOut",
    "FunctionCallPutDataOut",
    "FunctionFinishInputs",
    "FunctionGet",
    "FunctionGetById",
    "FunctionGetCurrentStats",
    "FunctionGetDynamicConcurrency",
    "FunctionGetInputs",
    "FunctionGetOutputs",
    "FunctionGetSerialized",
    "FunctionMap",
    "FunctionPutInputs",
    "FunctionPutOutputs",
    "FunctionRetryInputs",
    "MountPutFile",
    "SharedVolumeGetFile",
    "SharedVolumeGetOrCreate",
    "SharedVolumeHeartbeat",
    "SharedVolumeListFiles",
    "SharedVolumeListFilesStream",
    "SharedVolumePutFile",
    "SharedVolumeRemoveFile",
    "TaskResult",
    "VolumeCommit",
    "VolumeCopyFiles",
    "VolumeCopyFiles2",
    "VolumeGetById",
    "VolumeGetFile",
    "VolumeGetFile2",
    "VolumeGetOrCreate",
    "VolumeHeartbeat",
    "VolumeList",
    "VolumeListFiles",
    "VolumeListFiles2",
    "VolumePutFiles",
    "VolumePutFiles2",
    "VolumeReload",
    "VolumeRemoveFile",
    "VolumeRemoveFile2",
];

/// Whether a gRPC request for `path` passes. A method that control doesn't have passes too: control says in words of
/// the user what it is that isn't there.
pub(super) fn grpc(scope: Scope, path: &str) -> bool {
    scope == Scope::Task
        && path.strip_prefix(SERVICE).is_some_and(|method| {
            METHODS.binary_search(&method).is_ok()
                || !method.is_empty() && !homeport_proto::CLIENT_METHODS.contains(&method)
        })
}

/// Whether any other request passes: signed blob URLs, and reading from the hub.
pub(super) fn plain(method: &Method, path: &str) -> bool {
    if !is_canonical(path) {
        return false;
    }
    if path.starts_with("/blobs/") {
        return [Method::GET, Method::HEAD, Method::PUT, Method::POST].contains(method);
    }
    if method == Method::GET || method == Method::HEAD {
        return is_hub_api(path) || is_hub_file(path);
    }
    // A question with a long list of paths, which is why it isn't a GET.
    method == Method::POST && is_hub_api(path) && path.contains("/paths-info/")
}

fn is_hub_api(path: &str) -> bool {
    ["models", "datasets", "spaces", "resolve-cache"].iter().any(|kind| {
        path.strip_prefix("/api/")
            .and_then(|rest| rest.strip_prefix(kind))
            .is_some_and(|rest| rest.starts_with('/'))
    }) || path == "/api/whoami-v2"
}

/// `/name/resolve/revision/file`, with one to three segments before `resolve`.
fn is_hub_file(path: &str) -> bool {
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    (1..=3).any(|at| segments.get(at) == Some(&"resolve") && segments.len() > at + 2 && segments[0] != "api")
}

/// Refuses paths that another server could read as a different one.
fn is_canonical(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    path.starts_with('/')
        && !lower.contains("//")
        && !lower.contains('\\')
        && !lower.split('/').any(|segment| matches!(segment.replace("%2e", ".").as_str(), "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_sorted_and_unique() {
        assert!(METHODS.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn task_may_call_the_client_api_but_not_deploy_or_act_as_a_worker() {
        assert!(grpc(Scope::Task, "/modal.client.ModalClient/FunctionGetInputs"));
        assert!(grpc(Scope::Task, "/modal.client.ModalClient/VolumeReload"));
        assert!(!grpc(Scope::Task, "/modal.client.ModalClient/AppDeploy"));
        assert!(!grpc(Scope::Task, "/modal.client.ModalClient/VolumeDelete"));
        assert!(!grpc(Scope::Task, "/modal.client.ModalClient/"));
        assert!(!grpc(Scope::Task, "/homeport.worker.v1.WorkerLink/Attach"));
        assert!(!grpc(Scope::Task, "/x/modal.client.ModalClient/FunctionGetInputs"));
    }

    #[test]
    fn build_command_may_call_no_method() {
        assert!(!grpc(Scope::Build, "/modal.client.ModalClient/ClientHello"));
    }

    #[test]
    fn hub_may_be_read_but_not_written() {
        assert!(plain(&Method::GET, "/api/models/org/name/revision/main"));
        assert!(plain(&Method::HEAD, "/org/name/resolve/main/config.json"));
        assert!(plain(&Method::GET, "/gpt2/resolve/main/a/b.bin"));
        assert!(plain(&Method::GET, "/datasets/org/name/resolve/main/x.parquet"));
        assert!(plain(&Method::POST, "/api/models/org/name/paths-info/main"));
        assert!(!plain(&Method::POST, "/api/models/org/name/commit/main"));
        assert!(!plain(&Method::PUT, "/org/name/resolve/main/config.json"));
        assert!(!plain(&Method::GET, "/metrics"));
        assert!(!plain(&Method::GET, "/api/modelsx/a"));
        assert!(!plain(&Method::GET, "/org/name/resolve/main"));
    }

    #[test]
    fn paths_that_climb_are_refused() {
        assert!(plain(&Method::PUT, "/blobs/bl-1"));
        assert!(!plain(&Method::GET, "/blobs/../metrics"));
        assert!(!plain(&Method::GET, "/blobs/%2E%2e/metrics"));
        assert!(!plain(&Method::GET, "/blobs/.%2e/metrics"));
        assert!(!plain(&Method::GET, "/blobs//metrics"));
    }
}
