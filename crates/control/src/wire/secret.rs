//! Secrets: made, found, listed, changed, deleted. No answer holds a value.

use homeport_proto::client as pb;
use tonic::Status;

use super::missing;
use crate::auth::Caller;
use crate::control::Control;
use crate::secrets::{Entry, IfExists, NewSecret, SecretError, Variables};

impl Control {
    pub(super) async fn secret_get_or_create(
        &self,
        caller: &Caller,
        request: pb::SecretGetOrCreateRequest,
    ) -> Result<pb::SecretGetOrCreateResponse, Status> {
        use pb::ObjectCreationType as Creation;
        let creation = request.object_creation_type();
        let environment = self.environment(&request.environment_name)?;
        let name = request.deployment_name;
        let mut new = NewSecret {
            environment,
            created_by: self.who(caller).await?,
            variables: Variables::checked(request.env_dict)?,
            ..Default::default()
        };
        let entry = match creation {
            Creation::Unspecified => self.secrets.named(&name, &new.environment)?,
            Creation::CreateIfMissing | Creation::CreateFailIfExists | Creation::CreateOverwriteIfExists => {
                new.id = self.new_id(caller, "st", format!("{} {name}", new.environment).as_bytes());
                new.name = name;
                let if_exists = match creation {
                    Creation::CreateIfMissing => IfExists::Keep,
                    Creation::CreateOverwriteIfExists => IfExists::Overwrite,
                    _ => IfExists::Fail,
                };
                self.secrets.create_named(new, if_exists).await?
            }
            Creation::AnonymousOwnedByApp => {
                if self.registry.app(&request.app_id).is_none() {
                    return Err(missing("app", &request.app_id));
                }
                new.id = self.secrets.anonymous_id(&request.app_id, &new.variables)?;
                new.app_id = request.app_id;
                self.secrets.create_anonymous(new).await?
            }
            Creation::Ephemeral => {
                self.secrets.forget_old().await?;
                new.id = self.new_id(caller, "st", b"ephemeral");
                self.secrets.create_anonymous(new).await?
            }
        };
        require(&entry, &request.required_keys)?;
        let secret_id = entry.record.id.clone();
        Ok(pb::SecretGetOrCreateResponse { secret_id, metadata: Some(metadata(&entry)) })
    }

    pub(super) async fn secret_get_info(
        &self,
        _: &Caller,
        request: pb::SecretGetInfoRequest,
    ) -> Result<pb::SecretGetInfoResponse, Status> {
        let entry = self.secrets.find(&request.secret_id)?;
        Ok(pb::SecretGetInfoResponse { metadata: Some(metadata(&entry)) })
    }

    pub(super) async fn secret_list(
        &self,
        _: &Caller,
        request: pb::SecretListRequest,
    ) -> Result<pb::SecretListResponse, Status> {
        let environment_name = self.environment(&request.environment_name)?;
        let page = request.pagination.unwrap_or_default();
        let most = usize::try_from(page.max_objects).ok().filter(|most| *most > 0).unwrap_or(usize::MAX);
        let before = if page.created_before > 0.0 { page.created_before } else { f64::MAX };
        let entries = self.secrets.list(&environment_name);
        let entries = entries.iter().filter(|entry| entry.record.created_at < before).take(most);
        let items = entries.map(|entry| pb::SecretListItem {
            label: entry.record.name.clone(),
            created_at: entry.record.created_at,
            last_used_at: entry.used_at(),
            environment_name: entry.record.environment.clone(),
            secret_id: entry.record.id.clone(),
            metadata: Some(metadata(entry)),
        });
        Ok(pb::SecretListResponse { items: items.collect(), environment_name })
    }

    pub(super) async fn secret_update(
        &self,
        _: &Caller,
        request: pb::SecretUpdateRequest,
    ) -> Result<(), Status> {
        let (set, removed): (Vec<_>, Vec<_>) =
            request.updates.into_iter().partition(|update| update.value.is_some());
        let set = set.into_iter().map(|update| (update.key, update.value.unwrap_or_default()));
        let removed: Vec<String> = removed.into_iter().map(|update| update.key).collect();
        Ok(self.secrets.update(&request.secret_id, Variables::checked(set)?, &removed).await?)
    }

    pub(super) async fn secret_delete(
        &self,
        _: &Caller,
        request: pb::SecretDeleteRequest,
    ) -> Result<(), Status> {
        Ok(self.secrets.delete(&request.secret_id).await?)
    }
}

fn require(entry: &Entry, keys: &[String]) -> Result<(), SecretError> {
    let lacking: Vec<String> =
        keys.iter().filter(|key| !entry.record.keys.contains(key)).map(|key| format!("`{key}`")).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    Err(SecretError::LacksKeys { name: entry.record.name.clone(), keys: lacking.join(", ") })
}

fn metadata(entry: &Entry) -> pb::SecretMetadata {
    pb::SecretMetadata {
        name: entry.record.name.clone(),
        creation_info: Some(pb::CreationInfo {
            created_at: entry.record.created_at,
            created_by: entry.record.created_by.clone(),
        }),
        keys: entry.record.keys.clone(),
        environment_name: entry.record.environment.clone(),
        last_used_at: entry.used_at(),
        ..Default::default()
    }
}
