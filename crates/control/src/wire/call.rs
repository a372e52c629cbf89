//! Calls as callers see them.

use std::time::Duration;

use homeport_proto::client as pb;
use homeport_proto::record as rec;
use tonic::Status;

use super::{Answers, LONG_POLL, log, missing};
use crate::auth::Caller;
use crate::control::Control;
use crate::functions::{self, Route};
use crate::ids;
use crate::scheduler::{CallKind, NewInput};

/// Inputs that a client may have under way in one map.
const MAX_OUTSTANDING: u32 = 1000;
/// How long a question for outputs of a map is held while nothing is under way. A client that maps
/// over nothing finds that out only when its question is answered.
const EMPTY_MAP_HOLD: Duration = Duration::from_secs(1);
/// Outputs in one answer.
const PAGE: usize = 256;

impl Control {
    pub(super) async fn function_map(
        &self,
        caller: &Caller,
        request: pb::FunctionMapRequest,
    ) -> Result<pb::FunctionMapResponse, Status> {
        let function = self
            .registry
            .function(&request.function_id)
            .ok_or_else(|| missing("function", &request.function_id))?;
        let app = self.registry.app(&function.app_id).ok_or_else(|| missing("app", &function.app_id))?;
        if matches!(app.state(), pb::AppState::Stopping | pb::AppState::Stopped) {
            return Err(Status::failed_precondition(format!("the app {} is stopped", app.id)));
        }
        let route = functions::route(&self.registry, &function);
        let call_id = self.new_id(caller, "fc", b"call");
        let kind = match request.function_call_type() {
            pb::FunctionCallType::Map => CallKind::Map,
            _ => CallKind::Single,
        };
        let durable = is_durable(&request, &app);
        let inputs = new_inputs(&call_id, 0, request.pipelined_inputs, &route);
        let answers = answers(&inputs);
        let record = rec::Call {
            id: call_id.clone(),
            function_id: function.id.clone(),
            pool_id: route.pool_id.clone(),
            app_id: app.id.clone(),
            call_type: request.function_call_type,
            invocation: request.function_call_invocation_type,
        };
        if self.with_scheduler(|scheduler, _| scheduler.pool(&route.pool_id).is_none()) {
            return Err(missing("the definition of function", &route.pool_id));
        }
        if durable {
            self.durable.save(&record, &inputs, self.clock.now()).await.map_err(database)?;
        }
        self.with_scheduler(|scheduler, now| {
            scheduler.open_call(&call_id, &function.id, &app.id, kind, durable, now);
            scheduler.put_inputs(&call_id, &route.pool_id, inputs, now);
        });
        Ok(pb::FunctionMapResponse {
            function_call_jwt: call_id.clone(),
            function_call_id: call_id,
            pipelined_inputs: answers,
            max_inputs_outstanding: MAX_OUTSTANDING,
            ..Default::default()
        })
    }

    pub(super) async fn function_put_inputs(
        &self,
        caller: &Caller,
        request: pb::FunctionPutInputsRequest,
    ) -> Result<pb::FunctionPutInputsResponse, Status> {
        let call_id = &request.function_call_id;
        let (function_id, durable) = self
            .with_scheduler(|scheduler, _| {
                scheduler.call(call_id).map(|call| (call.function_id.clone(), call.durable))
            })
            .ok_or_else(|| missing("call", call_id))?;
        let function =
            self.registry.function(&function_id).ok_or_else(|| missing("function", &function_id))?;
        let route = functions::route(&self.registry, &function);
        // Without a key two batches of one call must still differ.
        let batch = caller.idempotency_key.clone().unwrap_or_else(|| ids::fresh(&*self.entropy, "batch"));
        let inputs = new_inputs(call_id, ids_salt(&batch), request.inputs, &route);
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

    pub(super) async fn function_get_outputs(
        &self,
        _: &Caller,
        request: pb::FunctionGetOutputsRequest,
    ) -> Result<pb::FunctionGetOutputsResponse, Status> {
        // After a restart outputs lie in another order: one who read some before reads all again.
        let cursor = log::entry_number(&request.last_entry_id).checked_sub(self.first_entry);
        let cursor = cursor.and_then(|past| usize::try_from(past).ok()).unwrap_or(0);
        let limit = usize::try_from(request.max_values).ok().filter(|most| *most > 0).unwrap_or(PAGE);
        let range = request.start_idx.zip(request.end_idx);
        let started = tokio::time::Instant::now();
        let mut deadline = started + seconds(request.timeout.into());
        loop {
            let (page, mut change, kind) = self
                .with_scheduler(|scheduler, now| {
                    let call = scheduler.call(&request.function_call_id)?;
                    let answer = (call.page(cursor, limit, range), call.watch(), call.kind);
                    if request.clear_on_success && (!answer.0.outputs.is_empty() || request.timeout <= 0.0) {
                        scheduler.release_call(&request.function_call_id, now);
                    }
                    Some(answer)
                })
                .ok_or_else(|| missing("call", &request.function_call_id))?;
            if page.outputs.is_empty() && page.unfinished == 0 && kind == CallKind::Map {
                deadline = deadline.min(started + EMPTY_MAP_HOLD);
            }
            let waited = page.outputs.is_empty()
                && tokio::time::timeout_at(deadline, change.changed()).await.is_ok_and(|moved| moved.is_ok());
            if waited {
                continue;
            }
            return Ok(pb::FunctionGetOutputsResponse {
                idxs: page.outputs.iter().map(|output| output.idx).collect(),
                last_entry_id: format!("{}-0", self.first_entry + page.next as u64),
                num_unfinished_inputs: i32::try_from(page.unfinished).unwrap_or(i32::MAX),
                outputs: page.outputs,
            });
        }
    }

    pub(super) async fn function_call_cancel(
        &self,
        _: &Caller,
        request: pb::FunctionCallCancelRequest,
    ) -> Result<(), Status> {
        let known = self.with_scheduler(|scheduler, now| {
            scheduler.cancel_call(&request.function_call_id, request.terminate_containers, now)
        });
        if known { Ok(()) } else { Err(missing("call", &request.function_call_id)) }
    }

    pub(super) async fn function_call_from_id(
        &self,
        _: &Caller,
        request: pb::FunctionCallFromIdRequest,
    ) -> Result<pb::FunctionCallFromIdResponse, Status> {
        self.with_scheduler(|scheduler, _| {
            scheduler.call(&request.function_call_id).map(|call| pb::FunctionCallFromIdResponse {
                function_call_id: call.id.clone(),
                num_inputs: i32::try_from(call.input_count()).unwrap_or(i32::MAX),
                metadata: Some(pb::FunctionCallHandleMetadata {
                    app_id: call.app_id.clone(),
                    function_id: call.function_id.clone(),
                }),
            })
        })
        .ok_or_else(|| missing("call", &request.function_call_id))
    }

    pub(super) async fn function_call_put_data_out(
        &self,
        caller: &Caller,
        request: pb::FunctionCallPutDataRequest,
    ) -> Result<(), Status> {
        let task_id = caller.task_id()?;
        let call_id = call_of(request.call_info.map(Into::into))?;
        self.with_scheduler(|scheduler, _| scheduler.append_chunks(task_id, &call_id, request.data_chunks));
        Ok(())
    }

    pub(super) fn function_call_get_data_out(
        &self,
        _: &Caller,
        request: pb::FunctionCallGetDataRequest,
    ) -> Result<Answers<pb::DataChunk>, Status> {
        let call_id = call_of(request.call_info.map(Into::into))?;
        let control = self.clone();
        let mut last = request.last_index;
        let deadline = tokio::time::Instant::now() + seconds(LONG_POLL);
        Ok(Box::pin(async_stream::try_stream! {
            loop {
                let (chunks, mut change) = control
                    .with_scheduler(|scheduler, _| {
                        scheduler.call(&call_id).map(|call| (call.chunks_after(last), call.watch()))
                    })
                    .ok_or_else(|| missing("call", &call_id))?;
                for chunk in chunks {
                    last = chunk.index;
                    yield chunk;
                }
                if !matches!(tokio::time::timeout_at(deadline, change.changed()).await, Ok(Ok(()))) {
                    break;
                }
            }
        }))
    }

    /// Data that flows into a call: only web endpoints have any. The stream stays open, as for a
    /// call to which nothing was sent yet.
    pub(super) fn function_call_get_data_in(
        &self,
        _: &Caller,
        _: pb::FunctionCallGetDataRequest,
    ) -> Result<Answers<pb::DataChunk>, Status> {
        Ok(Box::pin(async_stream::stream! {
            tokio::time::sleep(seconds(LONG_POLL)).await;
            // Ends without a chunk; the type of the stream needs one.
            for chunk in Vec::<Result<pb::DataChunk, Status>>::new() {
                yield chunk;
            }
        }))
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

fn new_inputs(
    call_id: &str,
    salt: u64,
    items: Vec<pb::FunctionPutInputsItem>,
    route: &Route,
) -> Vec<NewInput> {
    items
        .into_iter()
        .map(|item| {
            let mut payload = item.input.unwrap_or_default();
            if let (Some(method), true) =
                (&route.method, payload.method_name.as_deref().unwrap_or_default().is_empty())
            {
                payload.method_name = Some(method.clone());
            }
            let id = ids::derived("in", &[call_id.as_bytes(), &salt.to_le_bytes(), &item.idx.to_le_bytes()]);
            NewInput { id, idx: item.idx, payload }
        })
        .collect()
}

fn ids_salt(batch: &str) -> u64 {
    let digest = homeport_content::Digest::of(batch.as_bytes());
    let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
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

/// The two request types carry the same choice under two names.
enum CallInfo {
    Call(String),
    Attempt(String),
}

impl From<pb::function_call_get_data_request::CallInfo> for CallInfo {
    fn from(info: pb::function_call_get_data_request::CallInfo) -> Self {
        use pb::function_call_get_data_request::CallInfo as Info;
        match info {
            Info::FunctionCallId(id) => Self::Call(id),
            Info::AttemptToken(token) => Self::Attempt(token),
        }
    }
}

impl From<pb::function_call_put_data_request::CallInfo> for CallInfo {
    fn from(info: pb::function_call_put_data_request::CallInfo) -> Self {
        use pb::function_call_put_data_request::CallInfo as Info;
        match info {
            Info::FunctionCallId(id) => Self::Call(id),
            Info::AttemptToken(token) => Self::Attempt(token),
        }
    }
}

fn call_of(info: Option<CallInfo>) -> Result<String, Status> {
    match info {
        Some(CallInfo::Call(id)) => Ok(id),
        Some(CallInfo::Attempt(token)) => {
            Err(Status::failed_precondition(format!("attempt {token}: this server has no input plane")))
        }
        None => Err(Status::invalid_argument("the request names no call")),
    }
}

pub(super) fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(value.clamp(0.0, 3600.0))
}

fn database(error: homeport_meta::QueryError) -> Status {
    Status::unavailable(format!("the call could not be written: {error}"))
}
