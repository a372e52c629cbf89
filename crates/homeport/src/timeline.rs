//! `homeport app timeline`.

mod chart;

use std::io::IsTerminal;
use std::path::Path;

use homeport_proto::admin as pb;
use serde_json::json;

use crate::admin::{AdminError, with_server};
use crate::cli::AppCommand;
use chart::{Chart, Paint};

/// Columns where nobody says how many there are.
const COLUMNS: usize = 100;

/// Carries out a command; the answer is what it says.
pub(crate) fn run(data_dir: &Path, command: AppCommand) -> Result<String, AdminError> {
    let AppCommand::Timeline { app, environment, limit, json } = command;
    let request = pb::AppTimelineRequest { app, environment };
    let mut timeline = with_server(data_dir, async |mut admin| {
        Ok::<_, AdminError>(admin.app_timeline(request).await?.into_inner())
    })?;
    let surplus = timeline.starts.len().saturating_sub(limit);
    timeline.starts.drain(..surplus);
    if json {
        return Ok(serde_json::to_string_pretty(&in_json(&timeline))? + "\n");
    }
    let paint = if std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        Paint::Colours
    } else {
        Paint::Letters
    };
    Ok(Chart { timeline: &timeline, columns: columns(), paint }.to_string())
}

fn in_json(timeline: &pb::AppTimelineResponse) -> serde_json::Value {
    let starts = timeline.starts.iter().map(|start| {
        let stages = start.stages.iter().map(|stage| json!({ "name": stage.name, "seconds": stage.seconds }));
        json!({
            "task_id": start.task_id, "function": start.function, "began": start.began,
            "state": start.state, "outcome": start.outcome, "stages": stages.collect::<Vec<_>>(),
        })
    });
    json!({
        "app_id": timeline.app_id, "name": timeline.name, "state": timeline.state,
        "starts": starts.collect::<Vec<_>>(),
    })
}

fn columns() -> usize {
    let said = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let terminal = || rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|size| size.ws_col.into());
    said.or_else(terminal).filter(|columns| *columns > 0).unwrap_or(COLUMNS)
}
