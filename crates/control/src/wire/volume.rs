//! Volumes: made, found, listed, renamed, deleted, committed and reloaded. Their files are another module.

use homeport_proto::client as pb;
use homeport_proto::record as rec;
use tonic::Status;

use crate::auth::{Caller, Identity};
use crate::control::Control;
use crate::volumes::{NewVolume, VolumeError, metadata};

impl Control {
    pub(super) async fn volume_get_or_create(
        &self,
        caller: &Caller,
        request: pb::VolumeGetOrCreateRequest,
    ) -> Result<pb::VolumeGetOrCreateResponse, Status> {
        use pb::ObjectCreationType as Creation;
        let creation = pb::ObjectCreationType::try_from(request.object_creation_type).map_err(|_| {
            Status::invalid_argument("the request asks for an unknown way to create a Volume")
        })?;
        let environment = self.environment(&request.environment_name)?;
        let api_version = match request.version() {
            pb::VolumeFsVersion::V2 => pb::VolumeFsVersion::V2,
            // Every client knows the methods of the first version.
            pb::VolumeFsVersion::Unspecified | pb::VolumeFsVersion::V1 => pb::VolumeFsVersion::V1,
        };
        let mut new = NewVolume { environment, api_version, ..Default::default() };
        let name = request.deployment_name;
        let volume = match creation {
            Creation::Unspecified => self.volumes.named(&name, &new.environment)?,
            Creation::CreateIfMissing | Creation::CreateFailIfExists => {
                let id = self.new_id(caller, "vo", format!("{} {name}", new.environment).as_bytes());
                self.create_named(&id, &name, new, creation == Creation::CreateIfMissing).await?
            }
            Creation::CreateOverwriteIfExists => {
                return Err(Status::invalid_argument(
                    "a Volume is not overwritten by another one: delete it first, or choose another name",
                ));
            }
            Creation::AnonymousOwnedByApp => {
                if self.registry.app(&request.app_id).is_none() {
                    return Err(super::missing("app", &request.app_id));
                }
                new.app_id = request.app_id;
                self.volumes.create(&self.new_id(caller, "vo", b"anonymous"), new).await?
            }
            Creation::Ephemeral => {
                new.ephemeral = true;
                self.volumes.create(&self.new_id(caller, "vo", b"ephemeral"), new).await?
            }
        };
        Ok(pb::VolumeGetOrCreateResponse {
            volume_id: volume.id.clone(),
            version: volume.api_version,
            metadata: Some(metadata(&volume)),
        })
    }

    async fn create_named(
        &self,
        id: &str,
        name: &str,
        new: NewVolume,
        if_missing: bool,
    ) -> Result<std::sync::Arc<rec::Volume>, Status> {
        // Even without a name, which is refused then.
        if name.is_empty() {
            return Err(VolumeError::Name(String::new()).into());
        }
        let environment = new.environment.clone();
        match self.volumes.create(id, NewVolume { name: name.to_owned(), ..new }).await {
            Err(VolumeError::Exists { .. }) if if_missing => Ok(self.volumes.named(name, &environment)?),
            created => Ok(created?),
        }
    }

    pub(super) async fn volume_get_by_id(
        &self,
        _: &Caller,
        request: pb::VolumeGetByIdRequest,
    ) -> Result<pb::VolumeGetByIdResponse, Status> {
        let volume = self.volumes.find(&request.volume_id)?;
        Ok(pb::VolumeGetByIdResponse { volume_id: volume.id.clone(), metadata: Some(metadata(&volume)) })
    }

    pub(super) async fn volume_heartbeat(
        &self,
        _: &Caller,
        request: pb::VolumeHeartbeatRequest,
    ) -> Result<(), Status> {
        if self.volumes.find(&request.volume_id)?.ephemeral {
            self.volumes.beat(&request.volume_id);
        }
        Ok(())
    }

    pub(super) async fn volume_list(
        &self,
        _: &Caller,
        request: pb::VolumeListRequest,
    ) -> Result<pb::VolumeListResponse, Status> {
        let environment_name = self.environment(&request.environment_name)?;
        let page = request.pagination.unwrap_or_default();
        let most = usize::try_from(page.max_objects).ok().filter(|most| *most > 0).unwrap_or(usize::MAX);
        let before = if page.created_before > 0.0 { page.created_before } else { f64::MAX };
        let items = self.volumes.list(&environment_name);
        let items = items.iter().filter(|volume| volume.created_at < before).take(most);
        let items = items.map(|volume| pb::VolumeListItem {
            label: volume.name.clone(),
            volume_id: volume.id.clone(),
            created_at: volume.created_at,
            metadata: Some(metadata(volume)),
        });
        Ok(pb::VolumeListResponse { items: items.collect(), environment_name })
    }

    pub(super) async fn volume_delete(
        &self,
        _: &Caller,
        request: pb::VolumeDeleteRequest,
    ) -> Result<(), Status> {
        self.volumes.delete(&request.volume_id).await?;
        Ok(())
    }

    pub(super) async fn volume_rename(
        &self,
        _: &Caller,
        request: pb::VolumeRenameRequest,
    ) -> Result<(), Status> {
        Ok(self.volumes.rename(&request.volume_id, &request.name).await?)
    }

    pub(super) async fn volume_commit(
        &self,
        caller: &Caller,
        request: pb::VolumeCommitRequest,
    ) -> Result<pb::VolumeCommitResponse, Status> {
        self.commit_volume(container(caller, "commit")?, &request.volume_id).await?;
        // The container sees what it may see by now.
        Ok(pb::VolumeCommitResponse { skip_reload: true })
    }

    pub(super) async fn volume_reload(
        &self,
        caller: &Caller,
        request: pb::VolumeReloadRequest,
    ) -> Result<(), Status> {
        Ok(self.reload_volume(container(caller, "reload")?, &request.volume_id).await?)
    }
}

/// The task of a container that wants something of its own mount.
fn container<'a>(caller: &'a Caller, what: &str) -> Result<&'a str, Status> {
    match &caller.identity {
        Identity::Task { task_id } => Ok(task_id),
        // Clients make this a `RuntimeError` with the text.
        _ => Err(Status::failed_precondition(format!(
            "only a container that has the Volume mounted can {what} it; outside of one, there is no mount: what is \
             read is always the newest version, and what is written is committed at once"
        ))),
    }
}
