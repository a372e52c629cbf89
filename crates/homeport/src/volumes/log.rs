//! The history of a Volume in words.

use std::path::Path;

use homeport_proto::admin as pb;
use serde_json::{Value, json};

use super::shown::{path_json, shown, word};
use crate::models::size;
use crate::settings;
use crate::tokens::date;

/// What commands that are shown have to name, so that they can be pasted.
pub(super) struct Wording<'a> {
    pub(super) volume: &'a str,
    pub(super) environment: &'a str,
    pub(super) data_dir: &'a Path,
}

impl Wording<'_> {
    /// All versions, one line each, with what was written twice below.
    pub(super) fn log(&self, versions: &[pb::VolumeVersion]) -> String {
        let row = |[number, time, reason, who, change, bytes, notes]: [&str; 7]| {
            let line = format!(
                "{number:>7}  {time:<20}  {reason:<20}  {who:<28}  {change:<18}  {bytes:>10}  {notes}"
            );
            line.trim_end().to_owned() + "\n"
        };
        let mut text = row(["VERSION", "TIME", "REASON", "WHO", "CHANGES", "SIZE", "NOTES"]);
        for version in versions {
            let mut notes: Vec<String> = version.tags.iter().map(|tag| format!("[{tag}]")).collect();
            if !version.pinned_by.is_empty() {
                notes.push(format!("({})", version.pinned_by));
            }
            text += &row([
                &version.number.to_string(),
                &date(version.created_at as i64),
                &version.reason,
                &who(version),
                &format!("+{} ~{} -{}", version.added, version.changed, version.removed),
                &size(version.bytes),
                &notes.join(" "),
            ]);
            for conflict in &version.conflicts {
                text += &self.conflict(conflict);
            }
        }
        text
    }

    fn conflict(&self, conflict: &pb::VolumeConflict) -> String {
        let (path, version) = (shown(&conflict.path), conflict.lost_version);
        let by = if conflict.lost_by.is_empty() {
            String::new()
        } else {
            format!(" by {}", shown(conflict.lost_by.as_bytes()))
        };
        let (what, undo) = match conflict.lost_removed {
            true => ("was removed", "removes it again"),
            false => ("was also written", "brings that content back"),
        };
        format!(
            "         ! {path} {what} in version {version}{by}; this {undo}:\n             {}\n",
            self.restore(version, &conflict.path)
        )
    }

    fn restore(&self, version: u64, path: &[u8]) -> String {
        let mut command = "homeport volume".to_owned();
        if !self.environment.is_empty() {
            command += &format!(" --env {}", word(self.environment.as_bytes()));
        }
        if !settings::is_usual_data_dir(self.data_dir) {
            command += &format!(" --data-dir {}", word(self.data_dir.as_os_str().as_encoded_bytes()));
        }
        // A path may begin with what looks like an option.
        let ends = if path.starts_with(b"-") { "-- " } else { "" };
        format!("{command} restore {} --version {version} {ends}{}", word(self.volume.as_bytes()), word(path))
    }
}

/// The function and the task, or nobody: then the reason says it all.
fn who(version: &pb::VolumeVersion) -> String {
    match (version.function_name.as_str(), version.task_id.as_str()) {
        ("", task) => task.to_owned(),
        (function, "") => function.to_owned(),
        (function, task) => format!("{function} ({task})"),
    }
}

pub(super) fn version_json(version: &pb::VolumeVersion) -> Value {
    let conflicts: Vec<Value> = version
        .conflicts
        .iter()
        .map(|conflict| {
            let mut object = json!({
                "lost_version": conflict.lost_version,
                "lost_by": conflict.lost_by,
                "lost_removed": conflict.lost_removed,
            });
            path_json(&mut object, &conflict.path);
            object
        })
        .collect();
    json!({
        "number": version.number, "created_at": version.created_at, "reason": version.reason,
        "task_id": version.task_id, "function_name": version.function_name, "tags": version.tags,
        "files": version.files, "bytes": version.bytes, "added": version.added, "changed": version.changed,
        "removed": version.removed, "conflicts": conflicts, "pinned_by": version.pinned_by,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_line_and_a_conflict_the_command_that_undoes_it() {
        let version = pb::VolumeVersion {
            number: 12,
            created_at: 1_800_000_000.0,
            reason: "commit".into(),
            task_id: "ta-1".into(),
            function_name: "train".into(),
            tags: vec!["best".into()],
            files: 3,
            bytes: 2048,
            added: 1,
            changed: 2,
            removed: 0,
            conflicts: vec![pb::VolumeConflict {
                path: b"model/weights one.bin".to_vec().into(),
                lost_version: 11,
                lost_by: "tune (ta-0)".into(),
                lost_removed: false,
            }],
            pinned_by: "pinned by ta-1".into(),
        };
        let wording = Wording { volume: "weights", environment: "", data_dir: Path::new("/srv/hp") };
        let text = wording.log(std::slice::from_ref(&version));
        for part in [
            "2027-01-15 08:00 UTC",
            "commit",
            "train (ta-1)",
            "+1 ~2 -0",
            "2.0 KiB",
            "[best] (pinned by ta-1)",
            "in version 11 by tune (ta-0)",
            "homeport volume --data-dir /srv/hp restore weights --version 11 'model/weights one.bin'",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(version_json(&version)["conflicts"][0]["path"], "model/weights one.bin");
    }
}
