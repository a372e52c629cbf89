//! A task: a container that runs the client's entrypoint.

use std::sync::Arc;
use std::time::Duration;

use homeport_proto::worker::report::Report;
use homeport_proto::worker::task_ended::End;
use homeport_proto::worker::{StartTask, TaskEnded, TaskStage};
use homeport_runtime::{Container, Exit, ExitStatus, Limits};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::error::{SiteError, sentence};
use crate::node::Node;
use crate::orders::Signals;
use crate::output::Source;
use crate::process;
use crate::proxy::{Identity, Scope};
use crate::site::{Command, LeaveOut, Plan, Site};

/// Runs the task to its end; `stopping` says that this worker stops. When this returns, nothing of it is left on the
/// machine, and all but its end is reported.
pub(crate) async fn carry_out(
    node: &Arc<Node>,
    order: StartTask,
    mut signals: watch::Receiver<Signals>,
    stopping: &CancellationToken,
) -> TaskEnded {
    match run(node, order, &mut signals, stopping).await {
        Ok(ended) => ended,
        // It never ran, but a signal is what ended it.
        Err(SiteError::Cancelled(_)) => {
            let signal = if signals.borrow().kill { 9 } else { 2 };
            TaskEnded { end: Some(End::Signal(signal)), ..TaskEnded::default() }
        }
        Err(error) => TaskEnded { end: Some(End::StartError(sentence(&error))), ..TaskEnded::default() },
    }
}

async fn run(
    node: &Arc<Node>,
    order: StartTask,
    signals: &mut watch::Receiver<Signals>,
    stopping: &CancellationToken,
) -> Result<TaskEnded, SiteError> {
    let listen = match order.listen.as_str() {
        "" => node.options.listen,
        address => address.parse().map_err(|_| SiteError::Listen(address.to_owned()))?,
    };
    let id = order.task_id;
    let plan = Plan {
        id: id.clone(),
        layers: order.layers,
        files: order.files,
        scratch: Vec::new(),
        network_files: order.network_files,
        volumes: order.volumes,
        listen,
        identity: Identity::Task(id.clone()),
        scope: Scope::Task,
    };
    let watched = signals.clone();
    let (site, timing) = Site::prepare(node, plan, move || *watched.borrow() != Signals::default()).await?;
    report_stage(node, &id, "network", timing.network).await;
    report_stage(node, &id, "mount", timing.mount).await;

    let mut env = order.env;
    node.options.host_environment.complete_task(&mut env);
    let command = Command {
        argv: order.argv,
        env,
        workdir: order.workdir,
        user: String::new(),
        limits: limits(order.limits.as_ref()),
        devices: order.devices,
    };
    let source = Source::Task(id.clone());
    let volumes = site.volumes();
    let started = async |container: &Arc<Container>, took| {
        volumes.begin(node, container).await;
        report_stage(node, &id, "runtime", took).await;
    };
    let ran = process::run(node, site, command, source, signals, started).await;
    // Before the end is reported: who starts next sees what this one left.
    volumes.end(node, stopping).await;
    let (site, exit) = ran?;
    let exit = match exit {
        Ok(exit) => exit,
        Err(error) => {
            site.dismantle().await;
            return Err(error);
        }
    };
    let mut ended = ended(exit);
    let site = if order.commit_on_success && exit.status == ExitStatus::Code(0) {
        let (site, snapshot) = site.commit(node, LeaveOut::ClientLayers).await?;
        match snapshot {
            Ok(snapshot) => ended.snapshot = snapshot.to_string(),
            Err(error) => ended.commit_error = sentence(&error),
        }
        site
    } else {
        site
    };
    site.dismantle().await;
    Ok(ended)
}

fn ended(exit: Exit) -> TaskEnded {
    let end = match exit.status {
        ExitStatus::Code(code) => End::ExitCode(code),
        ExitStatus::Signal(signal) => End::Signal(signal),
    };
    TaskEnded { end: Some(end), out_of_memory: exit.out_of_memory, ..TaskEnded::default() }
}

/// The limits of an order, in the runtime's words.
pub(crate) fn limits(limits: Option<&homeport_proto::worker::Limits>) -> Limits {
    limits.map_or_else(Limits::default, |limits| Limits {
        milli_cpu: limits.milli_cpu,
        memory_bytes: limits.memory_bytes,
        pids: limits.pids,
    })
}

async fn report_stage(node: &Node, task_id: &str, stage: &str, took: Duration) {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let stage = TaskStage { task_id: task_id.to_owned(), stage: stage.to_owned(), micros };
    node.reports.send(Report::TaskStage(stage)).await;
}
