//! Running a command over a snapshot, and keeping what it wrote.

use std::sync::Arc;

use homeport_content::SnapshotId;
use homeport_proto::worker::step_ended::End;
use homeport_proto::worker::{RunCommand, StepFailure, StepResult};
use homeport_runtime::{Exit, ExitStatus};
use homeport_store::{Store, StoreError};
use tokio::sync::watch;

use super::{failure, keep};
use crate::error::{SiteError, blocking};
use crate::node::Node;
use crate::orders::Signals;
use crate::output::Source;
use crate::process;
use crate::proxy::{Identity, Scope};
use crate::site::{Command, LeaveOut, Plan, Site};
use crate::task::limits;

/// Longest command that a message shows, in characters.
const SHOWN: usize = 200;

#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Site(#[from] SiteError),
    #[error("the command's result could not be kept")]
    Commit(#[from] homeport_fs::FsError),
    #[error("the command's result could not be kept")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Keep(String),
}

pub(super) async fn carry_out(
    node: &Arc<Node>,
    id: String,
    order: RunCommand,
    signals: &mut watch::Receiver<Signals>,
) -> End {
    match run(node, id, order, signals).await {
        Ok(end) => end,
        Err(error) => failure(&error),
    }
}

async fn run(
    node: &Arc<Node>,
    id: String,
    order: RunCommand,
    signals: &mut watch::Receiver<Signals>,
) -> Result<End, StepError> {
    let plan = Plan {
        id: id.clone(),
        layers: order.layers,
        files: order.files,
        scratch: order.scratch,
        network_files: Vec::new(),
        volumes: Vec::new(),
        listen: node.options.listen,
        identity: Identity::Step(id.clone()),
        scope: Scope::Build,
    };
    let watched = signals.clone();
    let (site, _) = Site::prepare(node, plan, move || watched.borrow().kill).await?;

    let shown = shown(&order.argv);
    let mut env = order.env;
    node.options.host_environment.complete_build(&mut env);
    env.entry("HF_ENDPOINT".to_owned()).or_insert_with(|| format!("http://{}", node.options.listen));
    let command = Command {
        argv: order.argv,
        env,
        workdir: order.workdir,
        user: order.user,
        limits: limits(order.limits.as_ref()),
        devices: order.devices,
    };
    let (site, exit) = process::run(node, site, command, Source::Step(id), signals, async |_, _| {}).await?;
    let failed = match exit {
        Ok(exit) if exit.status == ExitStatus::Code(0) => None,
        Ok(exit) => Some(Ok(ended(&shown, exit, signals.borrow().kill))),
        Err(error) => Some(Err(error.into())),
    };
    if let Some(failed) = failed {
        site.dismantle().await;
        return failed;
    }
    let leave_out = if order.keep_only.is_empty() { LeaveOut::Place } else { LeaveOut::BindsOnly };
    let (site, snapshot) = site.commit(node, leave_out).await?;
    site.dismantle().await;
    let mut snapshot = snapshot?;
    if !order.keep_only.is_empty() {
        let store = Arc::clone(&node.store);
        snapshot = blocking(move || keep_only(&store, snapshot, &order.keep_only)).await??;
    }
    Ok(End::Result(StepResult { snapshot: snapshot.to_string(), config_json: String::new() }))
}

fn keep_only(store: &Store, snapshot: SnapshotId, kept: &[String]) -> Result<SnapshotId, StepError> {
    let tree = store.tree(&snapshot)?;
    let layer = keep::only(&tree, kept).map_err(StepError::Keep)?;
    Ok(store.put_tree(&layer)?)
}

/// What a command's unsuccessful end means.
fn ended(command: &str, exit: Exit, killed: bool) -> End {
    let (message, exit_code) = match exit.status {
        ExitStatus::Signal(_) if killed => ("it was cancelled".to_owned(), None),
        _ if exit.out_of_memory => {
            let message =
                format!("`{command}` ran out of memory; give the build more, or let it do less at a time");
            (message, code(exit.status))
        }
        ExitStatus::Code(code) => (format!("`{command}` exited with code {code}"), Some(code)),
        ExitStatus::Signal(signal) => (format!("`{command}` was ended by signal {signal}"), None),
    };
    End::Failure(StepFailure { message, exit_code, unreachable: false })
}

fn code(status: ExitStatus) -> Option<i32> {
    match status {
        ExitStatus::Code(code) => Some(code),
        ExitStatus::Signal(_) => None,
    }
}

/// The command as somebody would have written it: a script without the shell that runs it, and not longer than a line.
fn shown(argv: &[String]) -> String {
    let text = match argv {
        [shell, flag, script] if flag == "-c" && shell.ends_with("sh") => script.clone(),
        _ => argv.join(" "),
    };
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_is_shown_without_its_shell_and_shortened() {
        let argv = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        assert_eq!(shown(&argv(&["/bin/sh", "-c", "pip install\n  x"])), "pip install x");
        assert_eq!(shown(&argv(&["pip", "install", "x"])), "pip install x");
        assert_eq!(shown(&argv(&["é".repeat(500).as_str()])).chars().count(), SHOWN + 1);
    }
}
