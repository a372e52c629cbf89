//! `homeport gc` and `du`: what is in the store, and what nothing needs.

use std::path::Path;

use homeport_proto::admin as pb;
use serde_json::json;

use crate::admin::{AdminError, with_server};
use crate::cli::GcFlags;
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
        format!("{kind:<11}  {name:<55}  {bytes:>10}  {unique:>10}\n")
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

#[cfg(test)]
mod tests {
    use super::*;

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
