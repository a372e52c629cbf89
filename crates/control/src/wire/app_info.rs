//! What is known of an app, found by name or id; and its tags.

use std::collections::HashMap;

use homeport_proto::client as pb;
use homeport_proto::record as rec;
use tonic::Status;

use super::missing;
use crate::auth::Caller;
use crate::control::Control;
use crate::functions;
use crate::ids;

impl Control {
    pub(super) async fn app_get_or_create(
        &self,
        caller: &Caller,
        request: pb::AppGetOrCreateRequest,
    ) -> Result<pb::AppGetOrCreateResponse, Status> {
        let environment = self.environment(&request.environment_name)?;
        let name = &request.app_name;
        // Newer clients look up by id as well.
        let known = self.registry.deployed_app(name, &environment).or_else(|| self.registry.app(name));
        let app = match known {
            Some(app) => app,
            None if request.object_creation_type() == pb::ObjectCreationType::CreateIfMissing => {
                if name.is_empty() || name.starts_with("ap-") {
                    return Err(Status::invalid_argument(format!("`{name}` is no name for an app")));
                }
                let now = self.clock.now();
                let app = rec::App {
                    // The same name is the same app, whoever comes first.
                    id: match &caller.idempotency_key {
                        Some(_) => self.new_id(caller, "ap", name.as_bytes()),
                        None => ids::fresh(&*self.entropy, "ap"),
                    },
                    name: name.clone(),
                    description: name.clone(),
                    environment,
                    state: pb::AppState::Deployed.into(),
                    created_at: now,
                    deployed_at: now,
                    ..Default::default()
                };
                self.registry.put_app(app).await?
            }
            None => {
                return Err(Status::not_found(format!(
                    "no app `{name}` is deployed in environment `{environment}`; `create_if_missing=True` makes one"
                )));
            }
        };
        let handle_metadata = Some(self.app_metadata(&app));
        Ok(pb::AppGetOrCreateResponse { app_id: app.id.clone(), handle_metadata })
    }

    pub(super) async fn app_get_info(
        &self,
        _: &Caller,
        request: pb::AppGetInfoRequest,
    ) -> Result<pb::AppGetInfoResponse, Status> {
        let app = self.registry.app(&request.app_id).ok_or_else(|| missing("app", &request.app_id))?;
        let info = self.app_metadata(&app);
        let mut summaries = HashMap::new();
        for id in info.functions.values() {
            let Some(function) = self.registry.function(id) else { continue };
            let resources =
                functions::definition(&self.registry, &function).and_then(|found| found.resources);
            let gpu = resources.and_then(|resources| resources.gpu_config);
            let gpu_config = gpu.filter(|gpu| gpu.count > 0).into_iter().collect();
            summaries.insert(id.clone(), pb::app_get_info_response::FunctionInfoSummary { gpu_config });
        }
        Ok(pb::AppGetInfoResponse { info: Some(info), function_info_summaries: summaries })
    }

    pub(super) async fn app_get_tags(
        &self,
        _: &Caller,
        request: pb::AppGetTagsRequest,
    ) -> Result<pb::AppGetTagsResponse, Status> {
        let app = self.registry.app(&request.app_id).ok_or_else(|| missing("app", &request.app_id))?;
        Ok(pb::AppGetTagsResponse { tags: app.tags.clone() })
    }

    pub(super) async fn app_set_tags(
        &self,
        _: &Caller,
        request: pb::AppSetTagsRequest,
    ) -> Result<(), Status> {
        let _turn = self.registry.publishing.lock().await;
        let app = self.open_app(&request.app_id)?;
        self.registry.put_app(rec::App { tags: request.tags, ..app }).await?;
        Ok(())
    }

    /// What clients hold of an app.
    pub(super) fn app_metadata(&self, app: &rec::App) -> pb::AppHandleMetadata {
        pb::AppHandleMetadata {
            description: if app.name.is_empty() { app.description.clone() } else { app.name.clone() },
            app_id: app.id.clone(),
            environment_name: app.environment.clone(),
            lifecycle: Some(self.lifecycle(app)),
            functions: app.function_ids.clone(),
            servers: HashMap::new(),
        }
    }

    pub(super) fn lifecycle(&self, app: &rec::App) -> pb::AppLifecycle {
        let newest = self.registry.deployments(&app.id).into_iter().next_back();
        pb::AppLifecycle {
            app_state: app.state,
            created_at: app.created_at,
            deployed_at: app.deployed_at,
            deployed_by: newest.map(|newest| newest.deployed_by.clone()).unwrap_or_default(),
            version: app.version,
            stopped_at: app.stopped_at,
            stopped_by: app.stopped_by.clone(),
            ..Default::default()
        }
    }
}
