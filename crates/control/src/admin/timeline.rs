//! How the containers of an app started.

use std::sync::Arc;

use homeport_proto::admin as pb;
use homeport_proto::record as rec;
use tonic::Status;

use super::AdminService;

impl AdminService {
    pub(super) async fn app_timeline(
        &self,
        request: pb::AppTimelineRequest,
    ) -> Result<pb::AppTimelineResponse, Status> {
        let app = self.find_app(&request)?;
        let starts = self.0.with_scheduler(|scheduler, _| scheduler.starts());
        let starts = starts.into_iter().filter(|start| start.app_id == app.id);
        Ok(pb::AppTimelineResponse {
            app_id: app.id.clone(),
            name: if app.name.is_empty() { app.description.clone() } else { app.name.clone() },
            state: app.state().as_str_name().trim_start_matches("APP_STATE_").to_lowercase(),
            starts: starts
                .map(|container| pb::ContainerStart {
                    began: container.start.began(),
                    stages: container
                        .start
                        .stages()
                        .into_iter()
                        .map(|stage| pb::StartStage { name: stage.name.to_owned(), seconds: stage.seconds })
                        .collect(),
                    task_id: container.task_id,
                    function: container.function,
                    state: container.state.to_owned(),
                    outcome: container.outcome.to_owned(),
                })
                .collect(),
        })
    }

    /// An app by its id, or the newest of a name: the one under which it was deployed, or what an
    /// ephemeral one calls itself.
    fn find_app(&self, request: &pb::AppTimelineRequest) -> Result<Arc<rec::App>, Status> {
        if let Some(app) = self.0.registry.app(&request.app) {
            return Ok(app);
        }
        let apps = self.0.registry.apps().into_iter().filter(|app| {
            (app.name == request.app || (app.name.is_empty() && app.description == request.app))
                && (request.environment.is_empty() || app.environment == request.environment)
        });
        apps.max_by(|a, b| a.created_at.total_cmp(&b.created_at)).ok_or_else(|| {
            Status::not_found(format!(
                "there is no app `{}`, nor was there one since the server started: `modal app list` shows them",
                request.app
            ))
        })
    }
}
