//! The data of generators.

use std::time::Duration;

use homeport_proto::client as pb;
use tonic::Status;

use super::call::seconds;
use super::{Answers, LONG_POLL, missing};
use crate::auth::Caller;
use crate::control::Control;
use crate::scheduler::{Appended, Call};

/// How long a container waits for a slow reader before it looks whether it still shall.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

impl Control {
    /// Answered when there is room: so a generator gets no further ahead of its reader than memory allows.
    pub(super) async fn function_call_put_data_out(
        &self,
        caller: &Caller,
        request: pb::FunctionCallPutDataRequest,
    ) -> Result<(), Status> {
        let task_id = caller.task_id()?;
        let call_id = call_of(request.call_info.map(Into::into))?;
        let mut chunks = request.data_chunks;
        loop {
            match self.with_scheduler(|scheduler, _| scheduler.append_chunks(task_id, &call_id, chunks)) {
                Appended::Taken => return Ok(()),
                Appended::Later(rest, mut change) => {
                    chunks = rest;
                    // An error means that the call is gone, which the next round finds.
                    let _ = tokio::time::timeout(LOOK_AGAIN, change.changed()).await;
                }
            }
        }
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
        self.with_scheduler(|scheduler, _| scheduler.acknowledge_chunks(&call_id, last));
        Ok(Box::pin(async_stream::try_stream! {
            loop {
                let (page, change) = control
                    .with_scheduler(|scheduler, _| {
                        let page = scheduler.next_chunks(&call_id, last)?;
                        Some((page, scheduler.call(&call_id).map(Call::watch)))
                    })
                    .ok_or_else(|| missing("call", &call_id))?;
                let page = page.map_err(|_| {
                    Status::data_loss(format!("what came after item {last} of call {call_id} is gone"))
                })?;
                if page.is_empty() {
                    let Some(mut change) = change else { break };
                    if !matches!(tokio::time::timeout_at(deadline, change.changed()).await, Ok(Ok(()))) {
                        break;
                    }
                }
                for chunk in page {
                    last = chunk.index;
                    yield chunk;
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
