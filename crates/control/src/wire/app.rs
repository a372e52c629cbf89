//! The first hello, and the life of apps.

use homeport_proto::client as pb;
use homeport_proto::record as rec;
use tonic::Status;

use super::missing;
use crate::auth::Caller;
use crate::control::Control;
use crate::dialect::Dialect;
use crate::ids;

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
                environment: self.environment(&request.environment_name)?,
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

    pub(super) async fn app_stop(&self, caller: &Caller, request: pb::AppStopRequest) -> Result<(), Status> {
        let app = self.registry.app(&request.app_id).ok_or_else(|| missing("app", &request.app_id))?;
        if !matches!(app.state(), pb::AppState::Stopping | pb::AppState::Stopped) {
            let stopped_by = self.who(caller).await?;
            self.registry.put_app(rec::App { stopped_by, ..(*app).clone() }).await?;
            self.stop_app(&app.id).await?;
        }
        Ok(())
    }

    pub(super) async fn app_list(
        &self,
        _: &Caller,
        request: pb::AppListRequest,
    ) -> Result<pb::AppListResponse, Status> {
        let environment = self.environment(&request.environment_name)?;
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
                // Older clients have a number in this place, and skip what is none.
                metadata: Some(self.app_metadata(app)),
            })
            .collect();
        Ok(pb::AppListResponse { apps })
    }
}
