//! Calls as callers make them.

use std::time::Duration;

use homeport_proto::client as pb;
use homeport_proto::record as rec;
use tonic::Status;

use super::missing;
use crate::auth::Caller;
use crate::control::Control;
use crate::functions::Route;
use crate::ids;
use crate::scheduler::{CallKind, NewCall, NewInput, cancelled};
use crate::validation;

/// Inputs that a client may have under way in one map.
const MAX_OUTSTANDING: u32 = 1000;

impl Control {
    pub(super) async fn function_map(
        &self,
        caller: &Caller,
        request: pb::FunctionMapRequest,
    ) -> Result<pb::FunctionMapResponse, Status> {
        let function = self.function(&request.function_id).await?;
        let app = self.registry.app(&function.app_id).ok_or_else(|| missing("app", &function.app_id))?;
        if matches!(app.state(), pb::AppState::Stopping | pb::AppState::Stopped) {
            return Err(Status::failed_precondition(format!("the app {} is stopped", app.id)));
        }
        validation::inputs(&request.pipelined_inputs)?;
        let route = self.serving(&function).await?;
        let call_id = self.new_id(caller, "fc", b"call");
        let kind = match request.function_call_type() {
            pb::FunctionCallType::Map => CallKind::Map,
            _ => CallKind::Single,
        };
        let durable = is_durable(&request, &app);
        let inputs = new_inputs(&call_id, request.pipelined_inputs, &route);
        let answers = answers(&inputs);
        if durable {
            let record = rec::Call {
                id: call_id.clone(),
                function_id: function.id.clone(),
                pool_id: route.pool_id.clone(),
                app_id: app.id.clone(),
                call_type: request.function_call_type,
                invocation: request.function_call_invocation_type,
                parent_input_id: request.parent_input_id.clone(),
            };
            self.durable.save(&record, &inputs, self.clock.now()).await.map_err(database)?;
        }
        let call = NewCall {
            id: call_id.clone(),
            function_id: function.id.clone(),
            app_id: app.id.clone(),
            parent_input_id: request.parent_input_id,
            kind,
            durable,
        };
        self.with_scheduler(|scheduler, now| {
            scheduler.open_call(call, now);
            scheduler.put_inputs(&call_id, &route.pool_id, inputs, now);
        });
        Ok(pb::FunctionMapResponse {
            function_call_jwt: call_id.clone(),
            function_call_id: call_id,
            pipelined_inputs: answers,
            // No client shall retry by itself: the server does, for calls of every kind in the same way.
            sync_client_retries_enabled: false,
            max_inputs_outstanding: MAX_OUTSTANDING,
            ..Default::default()
        })
    }

    pub(super) async fn function_put_inputs(
        &self,
        _: &Caller,
        request: pb::FunctionPutInputsRequest,
    ) -> Result<pb::FunctionPutInputsResponse, Status> {
        let call_id = &request.function_call_id;
        validation::inputs(&request.inputs)?;
        self.recall(call_id).await?;
        let (function_id, durable) = self
            .with_scheduler(|scheduler, _| {
                scheduler.call(call_id).map(|call| (call.function_id.clone(), call.durable))
            })
            .ok_or_else(|| missing("call", call_id))?;
        let route = self.serving(&*self.function(&function_id).await?).await?;
        let inputs = new_inputs(call_id, request.inputs, &route);
        if !self.with_scheduler(|scheduler, _| scheduler.has_room(call_id, &inputs)) {
            // Clients wait and repeat this; so a map can have more inputs than memory.
            return Err(Status::resource_exhausted(format!(
                "call {call_id} has too many inputs without output"
            )));
        }
        let answers = answers(&inputs);
        if durable {
            self.durable.save_inputs(call_id, &inputs).await.map_err(database)?;
        }
        self.with_scheduler(|scheduler, now| scheduler.put_inputs(call_id, &route.pool_id, inputs, now));
        Ok(pb::FunctionPutInputsResponse { inputs: answers })
    }

    /// The client has put all inputs of a spawned map. Nothing waits for that word: whoever reads
    /// the outputs asks how many there are.
    pub(super) async fn function_finish_inputs(
        &self,
        _: &Caller,
        request: pb::FunctionFinishInputsRequest,
    ) -> Result<(), Status> {
        self.recall(&request.function_call_id).await.map(drop)
    }

    pub(super) async fn function_call_cancel(
        &self,
        _: &Caller,
        request: pb::FunctionCallCancelRequest,
    ) -> Result<(), Status> {
        let call_id = &request.function_call_id;
        if !self.recall(call_id).await? {
            // It was over long ago.
            return Ok(());
        }
        // What is cancelled must not run after a restart.
        let ended = self.with_scheduler(|scheduler, now| {
            let is_durable = scheduler.call(call_id).is_some_and(|call| call.durable);
            let open = if is_durable { scheduler.unfinished_inputs(call_id) } else { Vec::new() };
            let ended = open.iter().map(|input| {
                let item = pb::FunctionGetOutputsItem {
                    idx: input.idx,
                    input_id: input.id.clone(),
                    result: Some(cancelled()),
                    data_format: pb::DataFormat::Pickle.into(),
                    output_created_at: now,
                    ..Default::default()
                };
                (call_id.clone(), item)
            });
            ended.collect::<Vec<_>>()
        });
        if !ended.is_empty() {
            self.durable.save_outputs(&ended).await.map_err(database)?;
        }
        self.with_scheduler(|scheduler, now| {
            scheduler.cancel_call(call_id, request.terminate_containers, now);
        });
        Ok(())
    }

    pub(super) async fn function_call_from_id(
        &self,
        _: &Caller,
        request: pb::FunctionCallFromIdRequest,
    ) -> Result<pb::FunctionCallFromIdResponse, Status> {
        let call_id = &request.function_call_id;
        if !self.recall(call_id).await? {
            return Err(Status::not_found(format!("the results of call {call_id} have expired")));
        }
        self.with_scheduler(|scheduler, _| {
            scheduler.call(call_id).map(|call| pb::FunctionCallFromIdResponse {
                function_call_id: call.id.clone(),
                num_inputs: i32::try_from(call.input_count()).unwrap_or(i32::MAX),
                metadata: Some(pb::FunctionCallHandleMetadata {
                    app_id: call.app_id.clone(),
                    function_id: call.function_id.clone(),
                }),
            })
        })
        .ok_or_else(|| missing("call", call_id))
    }
}

/// A spawned call outlives the process that made it. The oldest client doesn't say which calls are
/// spawned; in its ephemeral apps nothing outlives the client anyway.
fn is_durable(request: &pb::FunctionMapRequest, app: &rec::App) -> bool {
    use pb::FunctionCallInvocationType as Invocation;
    match request.function_call_invocation_type() {
        Invocation::Async | Invocation::AsyncLegacy => true,
        Invocation::Sync | Invocation::SyncLegacy => false,
        Invocation::Unspecified => app.state() != pb::AppState::Ephemeral,
    }
}

/// A call has one input for each place, so a request that is repeated brings the same inputs again.
fn new_inputs(call_id: &str, items: Vec<pb::FunctionPutInputsItem>, route: &Route) -> Vec<NewInput> {
    items
        .into_iter()
        .map(|item| {
            let mut payload = item.input.unwrap_or_default();
            if let (Some(method), true) =
                (&route.method, payload.method_name.as_deref().unwrap_or_default().is_empty())
            {
                payload.method_name = Some(method.clone());
            }
            let id = ids::derived("in", &[call_id.as_bytes(), &item.idx.to_le_bytes()]);
            NewInput { id, idx: item.idx, payload }
        })
        .collect()
}

fn answers(inputs: &[NewInput]) -> Vec<pb::FunctionPutInputsResponseItem> {
    inputs
        .iter()
        .map(|input| pb::FunctionPutInputsResponseItem {
            idx: input.idx,
            input_id: input.id.clone(),
            input_jwt: input.id.clone(),
        })
        .collect()
}

pub(super) fn seconds(value: f64) -> Duration {
    // What is not a number is no time.
    Duration::try_from_secs_f64(value.clamp(0.0, 3600.0)).unwrap_or_default()
}

fn database(error: homeport_meta::QueryError) -> Status {
    Status::unavailable(format!("the call could not be written: {error}"))
}
