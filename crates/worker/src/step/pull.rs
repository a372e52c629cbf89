//! Bringing a base image into the store.

use std::sync::Arc;

use homeport_image::base::{BaseError, Credentials, Log};
use homeport_proto::worker::step_ended::End;
use homeport_proto::worker::{PullBase, StepFailure, StepResult};
use tokio::sync::{mpsc, watch};

use super::{cancelled, failure};
use crate::error::{Cancelled, sentence};
use crate::node::Node;
use crate::orders::Signals;
use crate::output::{self, Source};

#[derive(Debug, thiserror::Error)]
#[error("the configuration of the image can't be written down: {0}")]
struct UnwritableConfig(serde_json::Error);

pub(super) async fn carry_out(
    node: &Arc<Node>,
    id: String,
    order: PullBase,
    signals: &mut watch::Receiver<Signals>,
) -> End {
    let credentials = (!order.username.is_empty())
        .then_some(Credentials { username: order.username, password: order.password });
    let source = Source::Step(id);
    // Unbounded, because a log can't wait; it holds no more lines than a pull has events.
    let (log, mut lines) = mpsc::unbounded_channel();
    let log: Log = Arc::new(move |line: &str| {
        // After a cancel nobody reads them any more.
        let _ = log.send(format!("{line}\n"));
    });
    let resolve = node.bases.resolve(&order.reference, credentials.as_ref(), &log);
    tokio::pin!(resolve);
    let resolved = loop {
        tokio::select! {
            resolved = &mut resolve => break resolved,
            Some(line) = lines.recv() => output::say(&node.reports, &source, line).await,
            () = cancelled(signals) => return failure(&Cancelled),
        }
    };
    while let Ok(line) = lines.try_recv() {
        output::say(&node.reports, &source, line).await;
    }
    let (snapshot, config) = match resolved {
        Ok(base) => base,
        Err(error) => return failed(&error),
    };
    match serde_json::to_string(&config) {
        Ok(config_json) => End::Result(StepResult { snapshot: snapshot.to_string(), config_json }),
        Err(error) => failure(&UnwritableConfig(error)),
    }
}

fn failed(error: &BaseError) -> End {
    let unreachable = matches!(error, BaseError::Unreachable { .. });
    End::Failure(StepFailure { message: sentence(error), unreachable, ..StepFailure::default() })
}
