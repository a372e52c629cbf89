//! The versions of a deployed app: listed, brought back, started anew.

use homeport_proto::client as pb;
use homeport_proto::record as rec;
use tonic::Status;

use super::missing;
use crate::auth::Caller;
use crate::control::Control;
use crate::deployments::NewDeployment;

impl Control {
    pub(super) async fn app_deployment_history(
        &self,
        _: &Caller,
        request: pb::AppDeploymentHistoryRequest,
    ) -> Result<pb::AppDeploymentHistoryResponse, Status> {
        let app = self.registry.app(&request.app_id).ok_or_else(|| missing("app", &request.app_id))?;
        let current = u32::try_from(app.version).unwrap_or_default();
        let versions = self.registry.deployments(&app.id);
        let histories = versions.iter().rev().map(|version| pb::AppDeploymentHistory {
            app_id: app.id.clone(),
            version: version.version,
            client_version: version.client_version.clone(),
            deployed_at: version.deployed_at,
            deployed_by: version.deployed_by.clone(),
            tag: version.tag.clone(),
            rollback_version: version.rollback_version,
            rollback_allowed: version.version != current && can_come_back(version),
            commit_info: version.commit_info.clone(),
            deployment_type: version.deployment_type,
        });
        Ok(pb::AppDeploymentHistoryResponse {
            app_deployment_histories: histories.collect(),
            production_app_version: current,
        })
    }

    pub(super) async fn app_rollback(
        &self,
        caller: &Caller,
        request: pb::AppRollbackRequest,
    ) -> Result<pb::AppRollbackResponse, Status> {
        let _turn = self.registry.publishing.lock().await;
        let app = self.deployed(&request.app_id)?;
        let earlier = self.earlier(&app, request.version)?;
        let new = self.new_deployment(caller, &app.name, pb::DeploymentType::Rollback).await?;
        let deployed_at = self.redeploy(app, Some(&earlier), new).await?;
        Ok(pb::AppRollbackResponse {
            url: self.app_url(&request.app_id),
            deployed_at,
            server_warnings: Vec::new(),
        })
    }

    pub(super) async fn app_rollover(
        &self,
        caller: &Caller,
        request: pb::AppRolloverRequest,
    ) -> Result<pb::AppRolloverResponse, Status> {
        let _turn = self.registry.publishing.lock().await;
        let app = self.deployed(&request.app_id)?;
        let new = self.new_deployment(caller, &app.name, pb::DeploymentType::Rollover).await?;
        let deployed_at = self.redeploy(app, None, new).await?;
        Ok(pb::AppRolloverResponse {
            url: self.app_url(&request.app_id),
            deployed_at,
            server_warnings: Vec::new(),
        })
    }

    /// What a version says of itself whoever makes it.
    pub(super) async fn new_deployment(
        &self,
        caller: &Caller,
        name: &str,
        kind: pb::DeploymentType,
    ) -> Result<NewDeployment, Status> {
        Ok(NewDeployment {
            name: name.to_owned(),
            client_version: caller.client_version.clone(),
            deployed_by: self.who(caller).await?,
            request_key: caller.idempotency_key.clone().unwrap_or_default(),
            kind,
            ..Default::default()
        })
    }

    fn deployed(&self, app_id: &str) -> Result<rec::App, Status> {
        let app = self.open_app(app_id)?;
        if app.state() != pb::AppState::Deployed {
            return Err(Status::failed_precondition(format!("the app {app_id} is not deployed")));
        }
        Ok(app)
    }

    /// The version of a number; of a negative one, the version so far before the current one.
    fn earlier(&self, app: &rec::App, number: i32) -> Result<std::sync::Arc<rec::Deployment>, Status> {
        let name = &app.name;
        let number = if number < 0 { app.version.saturating_add(number) } else { number };
        if number == app.version {
            return Err(Status::failed_precondition(format!("`{name}` is at version v{number} already")));
        }
        let versions = self.registry.deployments(&app.id);
        let found = versions.into_iter().find(|version| i64::from(version.version) == i64::from(number));
        let found = found.ok_or_else(|| {
            let what = if number < 1 {
                "has no version before its current one".to_owned()
            } else {
                format!("has no version v{number}")
            };
            Status::not_found(format!("`{name}` {what}; `modal app history {name}` shows them"))
        })?;
        if !can_come_back(&found) {
            return Err(Status::failed_precondition(format!(
                "version v{number} of `{name}` is too old to come back: of old versions only the list is kept"
            )));
        }
        Ok(found)
    }
}

fn can_come_back(version: &rec::Deployment) -> bool {
    !version.functions.is_empty() || version.function_ids.is_empty()
}
