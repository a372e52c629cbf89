//! Environments.

use homeport_proto::client as pb;
use tonic::Status;

use crate::auth::Caller;
use crate::control::Control;
use crate::dialect::Dialect;
use crate::environments::{DEFAULT, or_default};
use crate::ids;

impl Control {
    pub(super) async fn environment_get_or_create(
        &self,
        caller: &Caller,
        request: pb::EnvironmentGetOrCreateRequest,
    ) -> Result<pb::EnvironmentGetOrCreateResponse, Status> {
        let name = or_default(&request.deployment_name);
        let name = match self.environment(&name) {
            Err(_) if request.object_creation_type() == pb::ObjectCreationType::CreateIfMissing => {
                self.environments.create(&name, self.clock.now()).await?;
                name
            }
            named => named?,
        };
        Ok(pb::EnvironmentGetOrCreateResponse {
            environment_id: environment_id(&name),
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

    pub(super) async fn environment_create(
        &self,
        _: &Caller,
        request: pb::EnvironmentCreateRequest,
    ) -> Result<(), Status> {
        if request.is_managed || !request.default_member_role_str.is_empty() {
            return Err(Status::failed_precondition(
                "this Homeport has no roles: everybody with a token may use every environment; create it without \
                 restrictions",
            ));
        }
        Ok(self.environments.create(&request.name, self.clock.now()).await?)
    }

    pub(super) async fn environment_list(
        &self,
        _: &Caller,
        (): (),
    ) -> Result<pb::EnvironmentListResponse, Status> {
        let items = self.environments.list().into_iter();
        let items = items.map(|(name, created_at)| pb::EnvironmentListItem {
            environment_id: environment_id(&name),
            default: name == DEFAULT,
            created_at,
            name,
            ..Default::default()
        });
        Ok(pb::EnvironmentListResponse { items: items.collect() })
    }

    pub(super) async fn environment_update(
        &self,
        _: &Caller,
        request: pb::EnvironmentUpdateRequest,
    ) -> Result<pb::EnvironmentListItem, Status> {
        let name = self.environment(&request.current_name)?;
        let refusal = if request.name.is_some_and(|new| new != name) {
            "an environment of this Homeport keeps its name, which its apps, Volumes and secrets carry: create another one"
        } else if request.web_suffix.is_some_and(|suffix| !suffix.is_empty()) {
            "this Homeport has no web endpoints yet, so an environment has no web suffix"
        } else if request.image_builder_version.is_some_and(|version| !version.is_empty()) {
            "an environment of this Homeport has no image builder version of its own: set MODAL_IMAGE_BUILDER_VERSION where \
             you run the client"
        } else {
            return Ok(pb::EnvironmentListItem {
                environment_id: environment_id(&name),
                default: name == DEFAULT,
                name,
                ..Default::default()
            });
        };
        Err(Status::failed_precondition(refusal))
    }

    pub(super) async fn environment_delete(
        &self,
        _: &Caller,
        request: pb::EnvironmentDeleteRequest,
    ) -> Result<(), Status> {
        self.delete_environment(&request.name).await
    }
}

fn environment_id(name: &str) -> String {
    ids::derived("en", &[name.as_bytes()])
}
