//! The history of Volumes, asked for by name.

use futures::StreamExt as _;
use homeport_proto::admin as pb;
use homeport_proto::record as rec;
use tonic::Status;

use super::{AdminService, Answers};
use crate::environments::or_default;
use crate::volumes::{DiffEntry, DiffKind, LogEntry, Settings};

impl AdminService {
    /// The Volume of this name; of this id, which ephemeral ones have in place of a name.
    pub(super) fn volume(&self, name: &str, environment_name: &str) -> Result<String, Status> {
        let volumes = self.0.volumes();
        match volumes.named(name, &or_default(environment_name)) {
            Ok(volume) => Ok(volume.id.clone()),
            Err(unknown) => match volumes.find(name) {
                Ok(volume) => Ok(volume.id.clone()),
                Err(_) => Err(unknown.into()),
            },
        }
    }

    pub(super) async fn volume_list(
        &self,
        request: pb::VolumeListRequest,
    ) -> Result<pb::VolumeListResponse, Status> {
        let volumes = self.0.volumes();
        let mut listed = Vec::new();
        for volume in volumes.list(&or_default(&request.environment)) {
            // One that is deleted meanwhile is not there any more.
            let Ok(head) = volumes.head(&volume.id) else { continue };
            listed.push(pb::VolumeSummary {
                id: volume.id.clone(),
                name: volume.name.clone(),
                created_at: volume.created_at,
                version: head.number(),
                files: head.record.files,
                bytes: head.record.bytes,
                api_version: match volume.api_version {
                    0 => 1,
                    version => u32::try_from(version).unwrap_or_default(),
                },
                mounted: u32::try_from(volumes.mounted(&volume.id)).unwrap_or(u32::MAX),
            });
        }
        Ok(pb::VolumeListResponse { volumes: listed })
    }

    pub(super) async fn volume_log(
        &self,
        request: pb::VolumeLogRequest,
    ) -> Result<pb::VolumeLogResponse, Status> {
        let id = self.volume(&request.volume, &request.environment)?;
        let entries = self.0.volumes().log(&id, request.limit as usize).await?;
        Ok(pb::VolumeLogResponse { versions: entries.into_iter().map(to_version).collect() })
    }

    pub(super) async fn volume_diff(
        &self,
        request: pb::VolumeDiffRequest,
    ) -> Result<Answers<pb::VolumeDiffEntry>, Status> {
        let id = self.volume(&request.volume, &request.environment)?;
        let entries = self.0.volumes().diff(&id, &request.from, &request.to).await?;
        Ok(futures::stream::iter(entries.into_iter().map(to_entry).map(Ok)).boxed())
    }

    pub(super) async fn volume_restore(
        &self,
        request: pb::VolumeRestoreRequest,
    ) -> Result<pb::VolumeVersionAnswer, Status> {
        let volume_id = self.volume(&request.volume, &request.environment)?;
        let paths = request.paths.iter().map(|path| path.to_vec()).collect();
        let version = self.0.volumes().restore(&volume_id, &request.version, paths).await?;
        Ok(pb::VolumeVersionAnswer { volume_id, version })
    }

    pub(super) async fn volume_tag(
        &self,
        request: pb::VolumeTagRequest,
    ) -> Result<pb::VolumeVersionAnswer, Status> {
        let volume_id = self.volume(&request.volume, &request.environment)?;
        let volumes = self.0.volumes();
        let version = volumes.tag(&volume_id, &request.version, &request.tag, request.remove).await?;
        Ok(pb::VolumeVersionAnswer { volume_id, version })
    }

    pub(super) async fn volume_fork(
        &self,
        request: pb::VolumeForkRequest,
    ) -> Result<pb::VolumeVersionAnswer, Status> {
        let origin = self.volume(&request.volume, &request.environment)?;
        let (volume_id, version) =
            self.0.volumes().fork(&origin, &request.new_name, &request.version).await?;
        Ok(pb::VolumeVersionAnswer { volume_id, version })
    }

    pub(super) async fn volume_configure(
        &self,
        request: pb::VolumeConfigureRequest,
    ) -> Result<pb::VolumeSettings, Status> {
        let id = self.volume(&request.volume, &request.environment)?;
        let settings = Settings {
            keep_versions: request.keep_versions,
            keep_days: request.keep_days,
            strict_reload: request.strict_reload,
            quota_bytes: request.quota_bytes,
            early_copies: request.set_early_copies.then_some(request.early_copies),
        };
        let record = self.0.volumes().configure(&id, settings).await?;
        Ok(pb::VolumeSettings {
            keep_versions: record.keep_versions,
            keep_days: record.keep_days,
            strict_reload: record.strict_reload,
            quota_bytes: record.quota_bytes,
            early_copies: record.early_copies.clone(),
        })
    }
}

fn to_version(entry: LogEntry) -> pb::VolumeVersion {
    let LogEntry { version, pinned_by } = entry;
    pb::VolumeVersion {
        number: version.number,
        created_at: version.created_at,
        reason: version.reason,
        task_id: version.task_id,
        function_name: version.function_name,
        tags: version.tags,
        files: version.files,
        bytes: version.bytes,
        added: version.added,
        changed: version.changed,
        removed: version.removed,
        conflicts: version.conflicts.into_iter().map(to_conflict).collect(),
        pinned_by,
    }
}

fn to_conflict(conflict: rec::VolumeConflict) -> pb::VolumeConflict {
    pb::VolumeConflict {
        path: conflict.path,
        lost_version: conflict.lost_version,
        lost_by: conflict.lost_by,
        lost_removed: conflict.lost_removed,
    }
}

fn to_entry(entry: DiffEntry) -> pb::VolumeDiffEntry {
    let kind = match entry.kind {
        DiffKind::Added => pb::volume_diff_entry::Kind::Added,
        DiffKind::Changed => pb::volume_diff_entry::Kind::Changed,
        DiffKind::Removed => pb::volume_diff_entry::Kind::Removed,
    };
    pb::VolumeDiffEntry {
        path: entry.path.into(),
        kind: kind.into(),
        old_size: entry.old_size,
        new_size: entry.new_size,
        directory: entry.directory,
    }
}
