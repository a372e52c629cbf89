//! `homeport gc`, `du` and `fsck`: the store as a whole.

use std::path::Path;

use homeport_proto::admin as pb;
use serde_json::json;

use crate::admin::{AdminError, with_server};
use crate::cli::{FsckFlags, GcFlags};
use crate::models::size;
use crate::progress::ProgressLine;

/// Removes what nothing refers to, on the running server.
pub(crate) fn collect(data_dir: &Path, flags: &GcFlags) -> Result<String, AdminError> {
    let request = pb::CollectGarbageRequest {
        dry_run: flags.dry_run,
        older_than_seconds: flags.older_than.map(|age| age.as_secs()),
    };
    let done = with_server(data_dir, async |mut admin| -> Result<_, AdminError> {
        let mut events = admin.collect_garbage(request).await?.into_inner();
        let mut line = ProgressLine::new();
        while let Some(event) = events.message().await? {
            if event.done {
                return Ok(event);
            }
            line.show(|| format!("{}: {}", event.phase, event.scanned));
        }
        Err(AdminError::Incomplete)
    })?;
    if flags.json {
        let report = json!({
            "dry_run": flags.dry_run, "removed_objects": done.removed_objects,
            "removed_trees": done.removed_trees, "removed_images": done.removed_images,
            "removed_bytes": done.removed_bytes, "kept_bytes": done.kept_bytes,
        });
        return Ok(serde_json::to_string_pretty(&report)? + "\n");
    }
    Ok(format!(
        "{} {}: {} files' contents, {} trees, {} mountable images; {} stay\n",
        if flags.dry_run { "would free" } else { "freed" },
        size(done.removed_bytes),
        done.removed_objects,
        done.removed_trees,
        done.removed_images,
        size(done.kept_bytes),
    ))
}

/// Says where the space goes.
pub(crate) fn usage(data_dir: &Path, json: bool) -> Result<String, AdminError> {
    let usage = with_server(data_dir, async |mut admin| -> Result<_, AdminError> {
        Ok(admin.disk_usage(pb::DiskUsageRequest {}).await?.into_inner())
    })?;
    if json {
        let rows: Vec<_> = usage
            .rows
            .iter()
            .map(|row| {
                json!({
                    "kind": row.kind, "name": row.name, "bytes": row.bytes, "unique_bytes": row.unique_bytes,
                })
            })
            .collect();
        let report = json!({
            "rows": rows, "total_bytes": usage.total_bytes, "garbage_bytes": usage.garbage_bytes,
            "free_bytes": usage.free_bytes,
        });
        return Ok(serde_json::to_string_pretty(&report)? + "\n");
    }
    Ok(usage_table(&usage))
}

fn usage_table(usage: &pb::DiskUsageResponse) -> String {
    let row = |[kind, name, bytes, unique]: [&str; 4]| {
        format!("{kind:<10}  {name:<56}  {bytes:>10}  {unique:>10}\n")
    };
    let mut table = row(["KIND", "NAME", "SIZE", "ALONE"]);
    for used in &usage.rows {
        table += &row([&used.kind, &used.name, &size(used.bytes), &size(used.unique_bytes)]);
    }
    table
        + &format!(
            "\n{} in the store, of which nothing refers to {}; {} are free.\n\
             ALONE is what would be free without it; the rest is shared with others.\n",
            size(usage.total_bytes),
            size(usage.garbage_bytes),
            size(usage.free_bytes)
        )
}

/// Reads everything and says what is wrong; returns the summary, and whether all is well.
pub(crate) fn check(data_dir: &Path, mut flags: FsckFlags) -> Result<(String, bool), AdminError> {
    flags.repair |= flags.repair_from.is_some();
    let mut found = Findings::default();
    let mut line = ProgressLine::new();
    with_server(data_dir, async |mut admin| -> Result<_, AdminError> {
        let request = pb::CheckStoreRequest {
            repair: flags.repair,
            repair_from: path_text(flags.repair_from.as_deref())?,
        };
        let mut events = admin.check_store(request).await?.into_inner();
        while let Some(event) = events.message().await? {
            let done = event.done;
            found.take(event, &mut line, flags.json);
            if done {
                return Ok(());
            }
        }
        Err(AdminError::Incomplete)
    })?;
    line.clear();
    Ok(found.report(&flags)?)
}

/// What a check found.
#[derive(Debug, Default)]
struct Findings {
    objects: u64,
    bytes: u64,
    /// A fault each, with what was done about it.
    faults: Vec<(String, Option<String>)>,
    /// Faults after which all is well again.
    mended: u64,
}

impl Findings {
    /// Takes up an event, and shows it: faults at once, since a check may take hours.
    fn take(&mut self, event: pb::CheckStoreProgress, line: &mut ProgressLine, json: bool) {
        self.objects = self.objects.max(event.checked_objects);
        self.bytes = self.bytes.max(event.checked_bytes);
        self.mended = self.mended.max(event.mended_faults);
        if !event.fault.is_empty() {
            let done = (!event.mended.is_empty()).then_some(event.mended);
            if !json {
                line.clear();
                // Stdout may be a pipe that nobody reads any more; the check goes on all the same.
                let _ = crate::output::print(&fault_lines(&event.fault, done.as_deref()));
            }
            self.faults.push((event.fault, done));
        }
        line.show(|| format!("checked {} objects, {}", self.objects, size(self.bytes)));
    }

    /// The summary, and whether all is well.
    fn report(&self, flags: &FsckFlags) -> Result<(String, bool), serde_json::Error> {
        let faults = self.faults.len() as u64;
        let left = faults.saturating_sub(self.mended);
        if flags.json {
            let faults: Vec<_> =
                self.faults.iter().map(|(fault, done)| json!({ "fault": fault, "done": done })).collect();
            let report = json!({
                "ok": left == 0, "checked_objects": self.objects, "checked_bytes": self.bytes,
                "faults": faults, "mended_faults": self.mended,
            });
            return Ok((serde_json::to_string_pretty(&report)? + "\n", left == 0));
        }
        let mut text = format!("checked {} objects, {}: ", self.objects, size(self.bytes));
        let count = if faults == 1 { "1 fault".to_owned() } else { format!("{faults} faults") };
        text += &match (faults, left) {
            (0, _) => "all is well\n".to_owned(),
            (_, 0) => format!("{count}, mended\n"),
            _ if flags.repair => format!(
                "{count}, {left} not mended; --repair-from takes good copies from a backup or another \
                 data directory\n"
            ),
            _ => format!("{count}; --repair mends what can be mended\n"),
        };
        Ok((text, left == 0))
    }
}

/// A path as the server, which has another working directory, finds it.
fn path_text(path: Option<&Path>) -> Result<String, AdminError> {
    let Some(path) = path else {
        return Ok(String::new());
    };
    let absolute = std::path::absolute(path).map_err(AdminError::Runtime)?;
    Ok(absolute.to_string_lossy().into_owned())
}

fn fault_lines(fault: &str, mended: Option<&str>) -> String {
    match mended {
        Some(mended) => format!("{fault}\n    {mended}\n"),
        None => format!("{fault}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_well_when_everything_was_mended() {
        let flags = FsckFlags { repair: true, repair_from: None, json: false };
        let mut found = Findings { objects: 2, bytes: 1024, ..Findings::default() };
        assert_eq!(found.report(&flags).unwrap(), ("checked 2 objects, 1.0 KiB: all is well\n".into(), true));
        found.faults.push(("object x is altered".into(), Some("a good copy is in its place".into())));
        found.mended = 1;
        assert!(found.report(&flags).unwrap().1);
        found.faults.push(("object z is altered".into(), Some("it was put aside".into())));
        let (text, well) = found.report(&flags).unwrap();
        assert!(!well && text.contains("2 faults, 1 not mended; --repair-from"), "{text}");
        let json = FsckFlags { json: true, ..flags };
        let value: serde_json::Value = serde_json::from_str(&found.report(&json).unwrap().0).unwrap();
        assert_eq!(value["faults"][0]["done"], "a good copy is in its place");
        assert_eq!(value["ok"], false);
    }

    #[test]
    fn usage_says_what_would_be_free() {
        let usage = pb::DiskUsageResponse {
            rows: vec![pb::DiskUsageRow {
                kind: "volume".into(),
                name: "weights".into(),
                bytes: 2048,
                unique_bytes: 1024,
            }],
            total_bytes: 4096,
            garbage_bytes: 512,
            free_bytes: 1 << 30,
        };
        let text = usage_table(&usage);
        for part in ["volume", "weights", "2.0 KiB", "1.0 KiB", "nothing refers to 512 B", "1.0 GiB are free"]
        {
            assert!(text.contains(part), "{text}");
        }
    }
}
