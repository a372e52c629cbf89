//! `homeport volume`.

mod log;
mod shown;

use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use homeport_proto::admin as pb;
use pb::volume_diff_entry::Kind;
use serde_json::json;

use crate::admin::{Admin, AdminError, with_server};
use crate::cli::{ConfigureFlags, Place, VolumeCommand, VolumeFlags};
use crate::models::size;
use crate::output::print;
use crate::tokens::date;
use log::Wording;
use shown::{path_json, shown};

/// Carries out a command; what it says is printed as it comes.
pub(crate) fn run(data_dir: &Path, flags: VolumeFlags) -> Result<String, AdminError> {
    with_server(data_dir, async |admin| {
        let asked = Asked { admin, environment: flags.environment };
        asked.carry_out(data_dir, flags.command).await
    })
}

/// A server, and the environment in which Volumes are looked for.
struct Asked {
    admin: Admin,
    environment: String,
}

impl Asked {
    async fn carry_out(self, data_dir: &Path, command: VolumeCommand) -> Result<String, AdminError> {
        match command {
            VolumeCommand::List { json } => self.list(json).await,
            VolumeCommand::Log { volume, limit, json } => self.log(data_dir, volume, limit, json).await,
            VolumeCommand::Diff { volume, from, to, json } => self.diff(volume, from, to, json).await,
            VolumeCommand::Restore { volume, version, paths } => {
                let paths = paths.into_iter().map(|path| path.into_vec().into()).collect();
                self.restore(volume, version, paths).await
            }
            VolumeCommand::Tag { volume, tag, version, remove } => {
                self.tag(volume, tag, version, remove).await
            }
            VolumeCommand::Fork { volume, new_name, version } => self.fork(volume, new_name, version).await,
            VolumeCommand::PutModel { model, place, revision } => {
                self.put_model(model.to_string(), revision.to_string(), place).await
            }
            VolumeCommand::Configure(flags) => self.configure(flags).await,
        }
    }

    async fn list(mut self, json: bool) -> Result<String, AdminError> {
        let request = pb::VolumeListRequest { environment: self.environment };
        let volumes = self.admin.volume_list(request).await?.into_inner().volumes;
        if json {
            let rows: Vec<_> = volumes
                .iter()
                .map(|volume| {
                    json!({
                        "id": volume.id, "name": volume.name, "created_at": volume.created_at,
                        "version": volume.version, "files": volume.files, "bytes": volume.bytes,
                        "api_version": volume.api_version, "mounted": volume.mounted,
                    })
                })
                .collect();
            return Ok(serde_json::to_string_pretty(&rows)? + "\n");
        }
        let row = |[name, version, files, bytes, mounted, created]: [&str; 6]| {
            format!("{name:<40}  {version:>8}  {files:>9}  {bytes:>10}  {mounted:>8}  {created}\n")
        };
        let mut table = row(["NAME", "VERSION", "FILES", "SIZE", "MOUNTED", "CREATED"]);
        for volume in &volumes {
            // An ephemeral one has no name.
            let name = if volume.name.is_empty() { &volume.id } else { &volume.name };
            table += &row([
                name,
                &volume.version.to_string(),
                &volume.files.to_string(),
                &size(volume.bytes),
                &volume.mounted.to_string(),
                &date(volume.created_at as i64),
            ]);
        }
        Ok(table)
    }

    async fn log(
        mut self,
        data_dir: &Path,
        volume: String,
        limit: Option<u32>,
        json: bool,
    ) -> Result<String, AdminError> {
        let request = pb::VolumeLogRequest {
            volume: volume.clone(),
            environment: self.environment.clone(),
            limit: limit.unwrap_or(0),
        };
        let versions = self.admin.volume_log(request).await?.into_inner().versions;
        if json {
            let versions: Vec<_> = versions.iter().map(log::version_json).collect();
            return Ok(serde_json::to_string_pretty(&versions)? + "\n");
        }
        let wording = Wording { volume: &volume, environment: &self.environment, data_dir };
        Ok(wording.log(&versions))
    }

    async fn diff(
        mut self,
        volume: String,
        from: Option<String>,
        to: Option<String>,
        json: bool,
    ) -> Result<String, AdminError> {
        let request = pb::VolumeDiffRequest {
            volume,
            environment: self.environment,
            from: from.unwrap_or_default(),
            to: to.unwrap_or_default(),
        };
        let mut entries = self.admin.volume_diff(request).await?.into_inner();
        let mut text = String::new();
        while let Some(entry) = entries.message().await? {
            text += &if json { diff_json(&entry)? } else { diff_line(&entry) };
            // There may be millions.
            if text.len() > 1 << 16 && print(&std::mem::take(&mut text)).is_err() {
                break;
            }
        }
        Ok(text)
    }

    async fn restore(
        mut self,
        volume: String,
        version: String,
        paths: Vec<bytes::Bytes>,
    ) -> Result<String, AdminError> {
        let request = pb::VolumeRestoreRequest {
            volume: volume.clone(),
            environment: self.environment,
            version: version.clone(),
            paths,
        };
        let made = self.admin.volume_restore(request).await?.into_inner();
        Ok(format!("{volume} has what version {version} had, in version {}\n", made.version))
    }

    async fn tag(
        mut self,
        volume: String,
        tag: String,
        version: Option<String>,
        remove: bool,
    ) -> Result<String, AdminError> {
        let request = pb::VolumeTagRequest {
            volume: volume.clone(),
            environment: self.environment,
            version: version.unwrap_or_default(),
            tag: tag.clone(),
            remove,
        };
        let tagged = self.admin.volume_tag(request).await?.into_inner();
        let what = if remove { "is no longer" } else { "is" };
        Ok(format!("version {} of {volume} {what} {tag}\n", tagged.version))
    }

    async fn fork(
        mut self,
        volume: String,
        new_name: String,
        version: Option<String>,
    ) -> Result<String, AdminError> {
        let request = pb::VolumeForkRequest {
            volume: volume.clone(),
            environment: self.environment,
            new_name: new_name.clone(),
            version: version.clone().unwrap_or_default(),
        };
        let made = self.admin.volume_fork(request).await?.into_inner();
        let from = version.map_or_else(|| volume.clone(), |version| format!("version {version} of {volume}"));
        Ok(format!("made {new_name} ({}) from {from}\n", made.volume_id))
    }

    async fn put_model(
        mut self,
        model: String,
        revision: String,
        place: Place,
    ) -> Result<String, AdminError> {
        let Place { volume, path } = place;
        let request = pb::VolumePutModelRequest {
            volume: volume.clone(),
            environment: self.environment,
            model: model.clone(),
            revision,
            path: path.clone().into_bytes().into(),
        };
        let made = self.admin.volume_put_model(request).await?.into_inner();
        Ok(format!("{model} is at {volume}:/{path}, in version {}\n", made.version))
    }

    async fn configure(mut self, flags: ConfigureFlags) -> Result<String, AdminError> {
        let request = pb::VolumeConfigureRequest {
            volume: flags.volume,
            environment: self.environment,
            keep_versions: flags.keep_versions,
            keep_days: flags.keep_days,
            strict_reload: flags.strict_reload,
            quota_bytes: flags.quota.map(|quota| quota.0),
            set_early_copies: flags.no_early_copies || !flags.early_copy.is_empty(),
            early_copies: flags.early_copy,
        };
        let set = self.admin.volume_configure(request).await?.into_inner();
        if flags.json {
            let settings = json!({
                "keep_versions": set.keep_versions, "keep_days": set.keep_days,
                "strict_reload": set.strict_reload, "quota_bytes": set.quota_bytes,
                "early_copies": set.early_copies,
            });
            return Ok(serde_json::to_string_pretty(&settings)? + "\n");
        }
        let or_default = |value: u32| match value {
            0 => "as the server is set".to_owned(),
            value => value.to_string(),
        };
        let quota = if set.quota_bytes == 0 { "none".to_owned() } else { size(set.quota_bytes) };
        let copies = if set.early_copies.is_empty() { "none".to_owned() } else { set.early_copies.join(" ") };
        Ok(format!(
            "keep versions   {}\nkeep days       {}\nstrict reload   {}\nquota           {quota}\n\
             early copies    {copies}\n",
            or_default(set.keep_versions),
            or_default(set.keep_days),
            set.strict_reload
        ))
    }
}

fn diff_line(entry: &pb::VolumeDiffEntry) -> String {
    let path = shown(&entry.path) + if entry.directory { "/" } else { "" };
    match (entry.kind(), entry.directory) {
        (Kind::Added, true) => format!("+ {path}\n"),
        (Kind::Added, false) => format!("+ {path}  {}\n", size(entry.new_size)),
        (Kind::Removed, true) => format!("- {path}\n"),
        (Kind::Removed, false) => format!("- {path}  {}\n", size(entry.old_size)),
        (_, true) => format!("~ {path}\n"),
        (_, false) => format!("~ {path}  {} -> {}\n", size(entry.old_size), size(entry.new_size)),
    }
}

fn diff_json(entry: &pb::VolumeDiffEntry) -> Result<String, serde_json::Error> {
    let kind = match entry.kind() {
        Kind::Added => "added",
        Kind::Removed => "removed",
        Kind::Changed | Kind::Unspecified => "changed",
    };
    let mut object = json!({
        "kind": kind, "old_size": entry.old_size, "new_size": entry.new_size, "directory": entry.directory,
    });
    path_json(&mut object, &entry.path);
    Ok(serde_json::to_string(&object)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: Kind, path: &[u8], sizes: (u64, u64), directory: bool) -> pb::VolumeDiffEntry {
        pb::VolumeDiffEntry {
            path: path.to_vec().into(),
            kind: kind.into(),
            old_size: sizes.0,
            new_size: sizes.1,
            directory,
        }
    }

    #[test]
    fn a_difference_says_what_became_of_a_name() {
        assert_eq!(diff_line(&entry(Kind::Added, b"a/b", (0, 2048), false)), "+ a/b  2.0 KiB\n");
        assert_eq!(diff_line(&entry(Kind::Changed, b"a", (1, 2), false)), "~ a  1 B -> 2 B\n");
        assert_eq!(diff_line(&entry(Kind::Removed, b"old", (0, 0), true)), "- old/\n");
        assert_eq!(diff_line(&entry(Kind::Removed, b"a\nb", (3, 0), false)), "- a\\nb  3 B\n");
    }

    #[test]
    fn a_name_that_is_no_text_keeps_its_bytes_in_json() {
        let line = diff_json(&entry(Kind::Added, b"a\xff", (0, 1), false)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((value["kind"].as_str(), value["path_hex"].as_str()), (Some("added"), Some("61ff")));
    }
}
