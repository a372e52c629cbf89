//! A step of an image build, or of the preparation of a layer.

mod command;
mod copy;
mod keep;
mod pull;

use std::sync::Arc;

use homeport_proto::worker::run_step::Step;
use homeport_proto::worker::step_ended::End;
use homeport_proto::worker::{RunStep, StepFailure};
use tokio::sync::watch;

use crate::error::{Cancelled, SiteError, sentence};
use crate::node::Node;
use crate::orders::Signals;

/// Carries the step out, when there is room for it. When this returns, nothing but its snapshot is left, and all but its
/// end is reported.
pub(crate) async fn carry_out(
    node: &Arc<Node>,
    order: RunStep,
    mut signals: watch::Receiver<Signals>,
) -> End {
    let slot = tokio::select! {
        slot = node.step_slots.acquire() => slot,
        () = cancelled(&mut signals) => return failure(&Cancelled),
    };
    let id = order.step_id;
    let end = match order.step {
        Some(Step::PullBase(pull)) => pull::carry_out(node, id, pull, &mut signals).await,
        Some(Step::RunCommand(run)) => command::carry_out(node, id, run, &mut signals).await,
        Some(Step::CopyFiles(copy)) => copy::carry_out(node, copy).await,
        None => failure(&SiteError::UnknownStep),
    };
    drop(slot);
    end
}

/// Waits until the step is cancelled.
async fn cancelled(signals: &mut watch::Receiver<Signals>) {
    if signals.wait_for(|signals| signals.kill).await.is_err() {
        std::future::pending().await
    }
}

fn failure(error: &dyn std::error::Error) -> End {
    End::Failure(StepFailure { message: sentence(error), ..StepFailure::default() })
}
