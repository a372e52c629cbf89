//! What an app consists of, and under which name it is found.

use std::sync::Arc;

use homeport_proto::client as pb;
use homeport_proto::record as rec;
use tonic::Status;

use super::app::environment;
use super::missing;
use crate::auth::{Caller, Identity};
use crate::control::Control;

impl Control {
    pub(super) async fn app_get_by_deployment_name(
        &self,
        _: &Caller,
        request: pb::AppGetByDeploymentNameRequest,
    ) -> Result<pb::AppGetByDeploymentNameResponse, Status> {
        let environment = environment(&request.environment_name);
        let app = self.registry.deployed_app(&request.name, &environment);
        Ok(pb::AppGetByDeploymentNameResponse {
            app_id: app.as_ref().map(|app| app.id.clone()).unwrap_or_default(),
            environment_name: environment,
            lifecycle: app.map(|app| lifecycle(&app)),
            ..Default::default()
        })
    }

    pub(super) async fn app_get_lifecycle(
        &self,
        _: &Caller,
        request: pb::AppGetLifecycleRequest,
    ) -> Result<pb::AppGetLifecycleResponse, Status> {
        let app = self.registry.app(&request.app_id).ok_or_else(|| missing("app", &request.app_id))?;
        Ok(pb::AppGetLifecycleResponse { lifecycle: Some(lifecycle(&app)) })
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
    fn open_app(&self, id: &str) -> Result<rec::App, Status> {
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
        let environment = environment(environment_name);
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
        let mut app = self.open_app(&request.app_id)?;
        let (functions, classes) =
            request.indexed_object_ids.into_iter().partition(|(_, id)| id.starts_with("fu-"));
        app.function_ids = functions;
        app.class_ids = classes;
        self.tie_classes(&app).await?;
        let app = self.registry.put_app(app).await?;
        if request.new_app_state != 0 {
            self.set_app_state(&app.id, state(request.new_app_state)?).await?;
        }
        self.refresh_pools(&app.id);
        Ok(())
    }

    pub(super) async fn app_deploy(
        &self,
        _: &Caller,
        request: pb::AppDeployRequest,
    ) -> Result<pb::AppDeployResponse, Status> {
        self.deploy(self.open_app(&request.app_id)?, &request.name).await?;
        Ok(pb::AppDeployResponse { url: self.app_url(&request.app_id) })
    }

    pub(super) async fn app_publish(
        &self,
        _: &Caller,
        request: pb::AppPublishRequest,
    ) -> Result<pb::AppPublishResponse, Status> {
        let mut app = self.open_app(&request.app_id)?;
        let state = state(request.app_state)?;
        app.function_ids = request.function_ids;
        app.class_ids = request.class_ids;
        app.tags.extend(request.tags);
        let app_id = app.id.clone();
        self.tie_classes(&app).await?;
        let mut deployed_at = 0.0;
        if state == pb::AppState::Deployed {
            deployed_at = self.deploy(app, &request.name).await?;
        } else {
            self.registry.put_app(app).await?;
            self.set_app_state(&app_id, state).await?;
        }
        self.refresh_pools(&app_id);
        Ok(pb::AppPublishResponse { url: self.app_url(&app_id), deployed_at, ..Default::default() })
    }

    /// Writes an app under its name, all of the deployment in one row. Another app of that name is
    /// replaced. Answers with the time.
    async fn deploy(&self, mut app: rec::App, name: &str) -> Result<f64, Status> {
        if name.is_empty() {
            return Err(Status::invalid_argument("an app is deployed under a name; none was given"));
        }
        let previous = self.registry.deployed_app(name, &app.environment);
        name.clone_into(&mut app.name);
        app.set_state(pb::AppState::Deployed);
        app.deployed_at = self.clock.now();
        app.version += 1;
        let app = self.registry.put_app(app).await?;
        self.forget_heartbeat(&app.id);
        if let Some(previous) = previous
            && previous.id != app.id
        {
            self.stop_app(&previous.id).await?;
        }
        Ok(app.deployed_at)
    }

    /// Clients that name no function in their classes mean the one that is published as `NAME.*`.
    async fn tie_classes(&self, app: &rec::App) -> Result<(), Status> {
        for (tag, class_id) in &app.class_ids {
            let Some(function_id) = app.function_ids.get(&format!("{tag}.*")) else { continue };
            let Some(class) = self.registry.class(class_id) else { continue };
            if class.function_id != *function_id {
                let mut class = (*class).clone();
                class.function_id.clone_from(function_id);
                self.registry.put_class(class).await?;
            }
        }
        Ok(())
    }
}

fn state(number: i32) -> Result<pb::AppState, Status> {
    pb::AppState::try_from(number)
        .map_err(|_| Status::invalid_argument(format!("{number} is no state of an app")))
}

fn lifecycle(app: &rec::App) -> pb::AppLifecycle {
    pb::AppLifecycle {
        app_state: app.state,
        created_at: app.created_at,
        deployed_at: app.deployed_at,
        version: app.version,
        stopped_at: app.stopped_at,
        ..Default::default()
    }
}
