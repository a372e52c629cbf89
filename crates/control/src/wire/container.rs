//! What containers say: they are there, want work, bring results.

use std::time::Duration;

use homeport_proto::client as pb;
use tonic::Status;

use crate::auth::Caller;
use crate::control::Control;
use crate::scheduler::{Scheduler, Take};

/// The longest answer to a heartbeat; the client gives up after some 15 s.
const HEARTBEAT_HOLD: Duration = Duration::from_secs(8);
/// The longest answer to a question for inputs.
const INPUTS_HOLD: Duration = Duration::from_secs(20);

impl Control {
    pub(super) async fn container_hello(&self, caller: &Caller, (): ()) -> Result<(), Status> {
        let task_id = caller.task_id()?;
        self.with_scheduler(|scheduler, now| scheduler.record_hello(task_id, now));
        Ok(())
    }

    /// Held for a while, so that a cancellation reaches the container at once.
    pub(super) async fn container_heartbeat(
        &self,
        caller: &Caller,
        _: pb::ContainerHeartbeatRequest,
    ) -> Result<pb::ContainerHeartbeatResponse, Status> {
        let task_id = caller.task_id()?;
        let deadline = tokio::time::Instant::now() + HEARTBEAT_HOLD;
        loop {
            let (cancelled, change) = self.with_scheduler(|scheduler, _| {
                let change = scheduler.task(task_id).map(crate::scheduler::Task::watch);
                (scheduler.take_cancelled(task_id), change)
            });
            if !cancelled.is_empty() {
                let event = pb::CancelInputEvent { input_ids: cancelled, ..Default::default() };
                return Ok(pb::ContainerHeartbeatResponse { cancel_input_event: Some(event) });
            }
            let Some(mut change) = change else { break };
            if !matches!(tokio::time::timeout_at(deadline, change.changed()).await, Ok(Ok(()))) {
                break;
            }
        }
        Ok(pb::ContainerHeartbeatResponse::default())
    }

    pub(super) async fn function_get_inputs(
        &self,
        caller: &Caller,
        request: pb::FunctionGetInputsRequest,
    ) -> Result<pb::FunctionGetInputsResponse, Status> {
        let task_id = caller.task_id()?;
        let most = request.batch_max_size.max(1) as usize;
        let linger = request.batch_linger_ms as f64 / 1000.0;
        let key = caller.idempotency_key.as_deref();
        let deadline = tokio::time::Instant::now() + INPUTS_HOLD;
        loop {
            let (take, now) = self.with_scheduler(|scheduler, now| {
                (scheduler.take_batch(task_id, most, linger, key, now), now)
            });
            match take {
                Take::Inputs(inputs) => {
                    return Ok(pb::FunctionGetInputsResponse { inputs, ..Default::default() });
                }
                Take::Stop => {
                    let stop = pb::FunctionGetInputsItem { kill_switch: true, ..Default::default() };
                    return Ok(pb::FunctionGetInputsResponse { inputs: vec![stop], ..Default::default() });
                }
                Take::Wait { mut change, until } => {
                    let idle = super::call::seconds((until - now).max(0.01));
                    let wake = deadline.min(tokio::time::Instant::now() + idle);
                    let _ = tokio::time::timeout_at(wake, change.changed()).await;
                    if tokio::time::Instant::now() >= deadline {
                        return Ok(pb::FunctionGetInputsResponse::default());
                    }
                }
            }
        }
    }

    pub(super) async fn function_put_outputs(
        &self,
        caller: &Caller,
        request: pb::FunctionPutOutputsRequest,
    ) -> Result<(), Status> {
        let task_id = caller.task_id()?;
        let key = caller.idempotency_key.as_deref();
        let (repeated, durable) = self.with_scheduler(|scheduler, _| {
            let outputs = request.outputs.iter();
            let durable: Vec<_> =
                outputs.filter_map(|item| durable_output(scheduler, task_id, item)).collect();
            (scheduler.has_brought(task_id, key), durable)
        });
        if repeated {
            // The answer to the first attempt was lost. What it brought may be on its second try by now.
            return Ok(());
        }
        if !durable.is_empty() {
            // The container repeats this for ever, until it is written.
            self.durable
                .save_outputs(&durable)
                .await
                .map_err(|error| Status::unavailable(format!("an output could not be written: {error}")))?;
        }
        self.with_scheduler(|scheduler, now| {
            scheduler.note_brought(task_id, key);
            scheduler.put_outputs(task_id, request.outputs, now);
        });
        Ok(())
    }

    pub(super) async fn task_result(
        &self,
        caller: &Caller,
        request: pb::TaskResultRequest,
    ) -> Result<(), Status> {
        let task_id = caller.task_id()?;
        let failed = request.result.filter(|result| {
            !matches!(
                result.status(),
                pb::generic_result::GenericStatus::Success | pb::generic_result::GenericStatus::Unspecified
            )
        });
        if let Some(result) = failed {
            self.with_scheduler(|scheduler, _| scheduler.report_result(task_id, result));
        }
        Ok(())
    }
}

/// What has to be on disk before the container hears that its output has arrived: outputs of durable
/// calls, unless they are failures that are tried again.
fn durable_output(
    scheduler: &Scheduler,
    task_id: &str,
    item: &pb::FunctionPutOutputsItem,
) -> Option<(String, pb::FunctionGetOutputsItem)> {
    let input = scheduler.input(&item.input_id)?;
    let call = scheduler.call(&input.call_id).filter(|call| call.durable)?;
    if !scheduler.is_final(task_id, &item.input_id, item.result.as_ref()) {
        return None;
    }
    let output = pb::FunctionGetOutputsItem {
        result: item.result.clone(),
        idx: input.idx,
        input_id: item.input_id.clone(),
        gen_index: item.gen_index,
        data_format: item.data_format,
        task_id: task_id.to_owned(),
        input_started_at: item.input_started_at,
        output_created_at: item.output_created_at,
        ..Default::default()
    };
    Some((call.id.clone(), output))
}
