//! The workspace, which is this server, and the token in use.

use homeport_meta::tokens;
use homeport_proto::client as pb;
use tonic::Status;

use crate::auth::{Caller, Identity};
use crate::control::Control;
use crate::registry::RegistryError;

/// What clients show as the workspace: there is one on each server.
const WORKSPACE: &str = "homeport";

impl Control {
    pub(super) async fn workspace_name_lookup(
        &self,
        _: &Caller,
        (): (),
    ) -> Result<pb::WorkspaceNameLookupResponse, Status> {
        Ok(pb::WorkspaceNameLookupResponse {
            workspace_name: WORKSPACE.to_owned(),
            username: WORKSPACE.to_owned(),
        })
    }

    pub(super) async fn token_info_get(
        &self,
        caller: &Caller,
        _: pb::TokenInfoGetRequest,
    ) -> Result<pb::TokenInfoGetResponse, Status> {
        let Identity::User { token_id } = &caller.identity else {
            return Err(Status::permission_denied("a container has no token"));
        };
        Ok(pb::TokenInfoGetResponse {
            token_id: token_id.clone(),
            workspace_id: WORKSPACE.to_owned(),
            workspace_name: WORKSPACE.to_owned(),
            token_name: self.who(caller).await?,
        })
    }

    /// The caller as people know it: the name of its token, or its task.
    pub(super) async fn who(&self, caller: &Caller) -> Result<String, Status> {
        match &caller.identity {
            Identity::User { token_id } => {
                let tokens = tokens::list(self.registry.meta()).await.map_err(RegistryError::from)?;
                let named = tokens.into_iter().find(|token| token.id == *token_id);
                Ok(named.map(|token| token.name).filter(|name| !name.is_empty()).unwrap_or(token_id.clone()))
            }
            Identity::Task { task_id } => Ok(task_id.clone()),
            Identity::Worker => Ok(String::new()),
        }
    }
}
