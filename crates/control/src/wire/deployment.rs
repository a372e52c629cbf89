//! What an app consists of, and under which name it is found.

use std::sync::Arc;

use homeport_proto::client as pb;
use homeport_proto::record as rec;
use tonic::Status;

use super::missing;
use crate::auth::{Caller, Identity};
use crate::control::Control;
use crate::deployments::NewDeployment;

impl Control {
    pub(super) async fn app_get_by_deployment_name(
        &self,
        _: &Caller,
        request: pb::AppGetByDeploymentNameRequest,
    ) -> Result<pb::AppGetByDeploymentNameResponse, Status> {
        let environment = self.environment(&request.environment_name)?;
        let deployed = self.registry.deployed_app(&request.name, &environment);
        // One that was stopped is still asked for: its log, its history.
        let ended = || self.registry.ended_app(&request.name, &environment);
        let previous = if deployed.is_none() { ended() } else { None };
        let id = |app: &Option<Arc<rec::App>>| app.as_ref().map(|app| app.id.clone()).unwrap_or_default();
        Ok(pb::AppGetByDeploymentNameResponse {
            app_id: id(&deployed),
            previous_app_id: id(&previous),
            environment_name: environment,
            lifecycle: deployed.or(previous).map(|app| self.lifecycle(&app)),
        })
    }

    pub(super) async fn app_get_lifecycle(
        &self,
        _: &Caller,
        request: pb::AppGetLifecycleRequest,
    ) -> Result<pb::AppGetLifecycleResponse, Status> {
        let app = self.registry.app(&request.app_id).ok_or_else(|| missing("app", &request.app_id))?;
        Ok(pb::AppGetLifecycleResponse { lifecycle: Some(self.lifecycle(&app)) })
    }

    pub(super) async fn app_get_objects(
        &self,
        caller: &Caller,
        request: pb::AppGetObjectsRequest,
    ) -> Result<pb::AppGetObjectsResponse, Status> {
        let app = self.own_app(caller, &request.app_id)?;
        let layout = self.layout(&app);
        let tag_of = |id: &str| {
            let mut tags = layout.function_ids.iter().chain(&layout.class_ids);
            tags.find(|(_, tagged)| *tagged == id).map(|(tag, _)| tag.clone()).unwrap_or_default()
        };
        let items = layout
            .objects
            .iter()
            .map(|object| pb::AppGetObjectsItem {
                tag: tag_of(&object.object_id),
                object: Some(object.clone()),
            })
            .filter(|item| request.include_unindexed || !item.tag.is_empty())
            .collect();
        Ok(pb::AppGetObjectsResponse { items })
    }

    pub(super) async fn app_get_layout(
        &self,
        caller: &Caller,
        request: pb::AppGetLayoutRequest,
    ) -> Result<pb::AppGetLayoutResponse, Status> {
        let app = self.own_app(caller, &request.app_id)?;
        Ok(pb::AppGetLayoutResponse { app_layout: Some(self.layout(&app)) })
    }

    /// The app `id` to be changed: one that was stopped, by somebody or because its client fell
    /// silent, doesn't come back.
    pub(super) fn open_app(&self, id: &str) -> Result<rec::App, Status> {
        let app = self.registry.app(id).ok_or_else(|| missing("app", id))?;
        match app.state() {
            pb::AppState::Stopping | pb::AppState::Stopped => {
                Err(Status::failed_precondition(format!("the app {id} was stopped; run or deploy it again")))
            }
            _ => Ok((*app).clone()),
        }
    }

    /// The app that is deployed under a name, for those who look something up in it.
    pub(super) fn deployed_app(&self, name: &str, environment_name: &str) -> Result<Arc<rec::App>, Status> {
        let environment = self.environment(environment_name)?;
        self.registry.deployed_app(name, &environment).ok_or_else(|| {
            Status::not_found(format!("no app `{name}` is deployed in environment `{environment}`"))
        })
    }

    /// The app `id`; a container gets its own only.
    pub(super) fn own_app(&self, caller: &Caller, id: &str) -> Result<Arc<rec::App>, Status> {
        if let Identity::Task { task_id } = &caller.identity {
            let own =
                self.with_scheduler(|scheduler, _| scheduler.task(task_id).map(|task| task.app_id.clone()));
            if own.as_deref() != Some(id) {
                return Err(Status::permission_denied(format!("a container may read its own app, not {id}")));
            }
        }
        self.registry.app(id).ok_or_else(|| missing("app", id))
    }

    pub(super) async fn app_set_objects(
        &self,
        _: &Caller,
        request: pb::AppSetObjectsRequest,
    ) -> Result<(), Status> {
        let _turn = self.registry.publishing.lock().await;
        let mut app = self.open_app(&request.app_id)?;
        let (function_ids, class_ids) =
            request.indexed_object_ids.into_iter().partition(|(_, id)| id.starts_with("fu-"));
        if app.state() == pb::AppState::Deployed {
            // The deployment follows, and with it all changes at once.
            app.staged = Some(rec::StagedObjects { function_ids, class_ids });
            self.registry.put_app(app).await?;
            return Ok(());
        }
        app.function_ids = function_ids;
        app.class_ids = class_ids;
        let app_id = app.id.clone();
        self.publish(app).await?;
        if request.new_app_state != 0 {
            self.set_app_state(&app_id, state(request.new_app_state)?).await?;
        }
        Ok(())
    }

    pub(super) async fn app_deploy(
        &self,
        caller: &Caller,
        request: pb::AppDeployRequest,
    ) -> Result<pb::AppDeployResponse, Status> {
        let _turn = self.registry.publishing.lock().await;
        let mut app = self.open_app(&request.app_id)?;
        if let Some(staged) = app.staged.take() {
            app.function_ids = staged.function_ids;
            app.class_ids = staged.class_ids;
        }
        let new = self.new_deployment(caller, &request.name, pb::DeploymentType::Standard).await?;
        self.deploy(app, NewDeployment { tag: request.tag, ..new }).await?;
        Ok(pb::AppDeployResponse { url: self.app_url(&request.app_id) })
    }

    pub(super) async fn app_publish(
        &self,
        caller: &Caller,
        request: pb::AppPublishRequest,
    ) -> Result<pb::AppPublishResponse, Status> {
        if request.staged {
            return Err(Status::failed_precondition(
                "this Homeport has no staged deployments yet: deploy the app, and roll it back if need be",
            ));
        }
        let _turn = self.registry.publishing.lock().await;
        let mut app = self.open_app(&request.app_id)?;
        let state = state(request.app_state)?;
        app.function_ids = request.function_ids;
        app.class_ids = request.class_ids;
        app.tags.extend(request.tags);
        let app_id = app.id.clone();
        let mut deployed_at = 0.0;
        if state == pb::AppState::Deployed {
            let new = self.new_deployment(caller, &request.name, pb::DeploymentType::Standard).await?;
            let (tag, commit_info) = (request.deployment_tag, request.commit_info);
            deployed_at = self.deploy(app, NewDeployment { tag, commit_info, ..new }).await?;
        } else {
            self.publish(app).await?;
            self.set_app_state(&app_id, state).await?;
        }
        Ok(pb::AppPublishResponse { url: self.app_url(&app_id), deployed_at, ..Default::default() })
    }
}

fn state(number: i32) -> Result<pb::AppState, Status> {
    pb::AppState::try_from(number)
        .map_err(|_| Status::invalid_argument(format!("{number} is no state of an app")))
}
