//! Containers, as `modal container` shows and stops them.

use homeport_proto::client as pb;
use tonic::Status;

use super::missing;
use crate::auth::Caller;
use crate::control::Control;

impl Control {
    pub(super) async fn task_list(
        &self,
        _: &Caller,
        request: pb::TaskListRequest,
    ) -> Result<pb::TaskListResponse, Status> {
        // Who names an app may leave out where it is.
        let environment = match (request.app_id.as_str(), request.environment_name.as_str()) {
            ("", name) => Some(self.environment(name)?),
            (_, _) => None,
        };
        let tasks = self.with_scheduler(|scheduler, _| {
            scheduler
                .live_tasks()
                .filter(|task| request.app_id.is_empty() || task.app_id == request.app_id)
                .map(|task| (task.id.clone(), task.app_id.clone(), task.created, task.start.process))
                .collect::<Vec<_>>()
        });
        let tasks = tasks
            .into_iter()
            .filter_map(|(task_id, app_id, enqueued_at, process)| {
                let app = self.registry.app(&app_id)?;
                let is_meant = environment.as_ref().is_none_or(|environment| *environment == app.environment);
                is_meant.then(|| pb::TaskStats {
                    task_id,
                    app_id,
                    app_description: if app.name.is_empty() { &app.description } else { &app.name }.clone(),
                    started_at: process.unwrap_or_default(),
                    enqueued_at,
                })
            })
            .collect();
        Ok(pb::TaskListResponse { tasks })
    }

    pub(super) async fn task_get_info(
        &self,
        _: &Caller,
        request: pb::TaskGetInfoRequest,
    ) -> Result<pb::TaskGetInfoResponse, Status> {
        let found = self.with_scheduler(|scheduler, _| {
            let task = scheduler.task(&request.task_id)?;
            let info = pb::TaskInfo {
                id: task.id.clone(),
                enqueued_at: task.created,
                started_at: task.start.process.unwrap_or_default(),
                finished_at: task.ended_at().unwrap_or_default(),
            };
            Some(pb::TaskGetInfoResponse { app_id: task.app_id.clone(), info: Some(info) })
        });
        found.ok_or_else(|| missing("container", &request.task_id))
    }

    pub(super) async fn container_stop(
        &self,
        _: &Caller,
        request: pb::ContainerStopRequest,
    ) -> Result<pb::ContainerStopResponse, Status> {
        let known = self.with_scheduler(|scheduler, now| {
            let app_id = scheduler.task(&request.task_id)?.app_id.clone();
            if request.graceful {
                scheduler.release(&request.task_id, now);
            } else {
                scheduler.drain(&request.task_id, now);
            }
            Some(app_id)
        });
        let app_id = known.ok_or_else(|| missing("container", &request.task_id))?;
        let text = format!("The container {} was stopped by hand.", request.task_id);
        self.logs.say(&app_id, &text, self.clock.now());
        Ok(pb::ContainerStopResponse {})
    }
}
