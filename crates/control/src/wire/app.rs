//! The first hello, environments, and the life of apps.

use homeport_proto::client as pb;
use homeport_proto::record as rec;
use tonic::Status;

use super::missing;
use crate::auth::Caller;
use crate::control::Control;
use crate::dialect::Dialect;
use crate::ids;

/// The environment of those who name none.
const DEFAULT_ENVIRONMENT: &str = "main";

pub(crate) fn environment(name: &str) -> String {
    if name.is_empty() { DEFAULT_ENVIRONMENT.to_owned() } else { name.to_owned() }
}

impl Control {
    pub(super) async fn client_hello(
        &self,
        caller: &Caller,
        (): (),
    ) -> Result<pb::ClientHelloResponse, Status> {
        if let Ok(task_id) = caller.task_id() {
            self.with_scheduler(|scheduler, now| scheduler.record_hello(task_id, now));
        }
        Ok(pb::ClientHelloResponse {
            image_builder_version: Dialect::of(&caller.client_version).builder_version.to_owned(),
            ..Default::default()
        })
    }

    pub(super) async fn environment_get_or_create(
        &self,
        caller: &Caller,
        request: pb::EnvironmentGetOrCreateRequest,
    ) -> Result<pb::EnvironmentGetOrCreateResponse, Status> {
        let name = environment(&request.deployment_name);
        Ok(pb::EnvironmentGetOrCreateResponse {
            environment_id: ids::derived("en", &[name.as_bytes()]),
            metadata: Some(pb::EnvironmentMetadata {
                name,
                settings: Some(pb::EnvironmentSettings {
                    image_builder_version: Dialect::of(&caller.client_version).builder_version.to_owned(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
        })
    }

    /// An id that a repeated request finds again.
    pub(super) fn new_id(&self, caller: &Caller, prefix: &str, salt: &[u8]) -> String {
        match &caller.idempotency_key {
            Some(key) => ids::derived(prefix, &[key.as_bytes(), salt]),
            None => ids::fresh(&*self.entropy, prefix),
        }
    }

    pub(super) async fn app_create(
        &self,
        caller: &Caller,
        request: pb::AppCreateRequest,
    ) -> Result<pb::AppCreateResponse, Status> {
        let app_id = self.new_id(caller, "ap", b"app");
        if self.registry.app(&app_id).is_none() {
            let app = rec::App {
                id: app_id.clone(),
                description: request.description,
                environment: environment(&request.environment_name),
                state: request.app_state,
                created_at: self.clock.now(),
                tags: request.tags,
                ..Default::default()
            };
            self.registry.put_app(app).await?;
        }
        self.beat(&app_id);
        let page = self.app_url(&app_id);
        Ok(pb::AppCreateResponse { app_id, app_page_url: page.clone(), app_logs_url: page })
    }

    pub(super) async fn app_heartbeat(
        &self,
        _: &Caller,
        request: pb::AppHeartbeatRequest,
    ) -> Result<(), Status> {
        let app = self.registry.app(&request.app_id).ok_or_else(|| missing("app", &request.app_id))?;
        if matches!(
            app.state(),
            pb::AppState::Ephemeral | pb::AppState::Initializing | pb::AppState::Detached
        ) {
            self.beat(&request.app_id);
        }
        Ok(())
    }

    pub(super) async fn app_client_disconnect(
        &self,
        _: &Caller,
        request: pb::AppClientDisconnectRequest,
    ) -> Result<(), Status> {
        let app = self.registry.app(&request.app_id).ok_or_else(|| missing("app", &request.app_id))?;
        match app.state() {
            pb::AppState::Ephemeral | pb::AppState::Initializing => self.stop_app(&app.id).await?,
            // It goes on without its client, and ends when it has nothing left to do.
            pb::AppState::Detached => self.set_app_state(&app.id, pb::AppState::DetachedDisconnected).await?,
            _ => {}
        }
        Ok(())
    }

    pub(super) async fn app_stop(&self, _: &Caller, request: pb::AppStopRequest) -> Result<(), Status> {
        if self.registry.app(&request.app_id).is_none() {
            return Err(missing("app", &request.app_id));
        }
        Ok(self.stop_app(&request.app_id).await?)
    }

    pub(super) async fn app_list(
        &self,
        _: &Caller,
        request: pb::AppListRequest,
    ) -> Result<pb::AppListResponse, Status> {
        let environment = environment(&request.environment_name);
        let mut apps: Vec<_> =
            self.registry.apps().into_iter().filter(|app| app.environment == environment).collect();
        apps.sort_by(|a, b| b.created_at.total_cmp(&a.created_at));
        let apps = apps
            .iter()
            .map(|app| pb::app_list_response::AppListItem {
                app_id: app.id.clone(),
                description: if app.name.is_empty() { app.description.clone() } else { app.name.clone() },
                state: app.state,
                created_at: app.created_at,
                stopped_at: app.stopped_at,
                n_running_tasks: self.running_tasks(&app.id),
                name: app.name.clone(),
                // Older clients read this number as another type: it stays unset.
                metadata: None,
            })
            .collect();
        Ok(pb::AppListResponse { apps })
    }

    pub(super) async fn task_list(
        &self,
        _: &Caller,
        request: pb::TaskListRequest,
    ) -> Result<pb::TaskListResponse, Status> {
        let environment = environment(&request.environment_name);
        let tasks = self.with_scheduler(|scheduler, _| {
            scheduler
                .live_tasks()
                .filter(|task| request.app_id.is_empty() || task.app_id == request.app_id)
                .map(|task| (task.id.clone(), task.app_id.clone(), task.created))
                .collect::<Vec<_>>()
        });
        let tasks = tasks
            .into_iter()
            .filter_map(|(task_id, app_id, started_at)| {
                let app = self.registry.app(&app_id)?;
                (app.environment == environment).then(|| pb::TaskStats {
                    task_id,
                    app_id,
                    app_description: app.description.clone(),
                    started_at,
                    enqueued_at: started_at,
                })
            })
            .collect();
        Ok(pb::TaskListResponse { tasks })
    }
}
