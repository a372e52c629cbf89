//! What callers get: outputs, or word that they are gone.

use std::time::Duration;

use homeport_proto::client as pb;
use tonic::Status;

use super::call::seconds;
use super::{log, missing};
use crate::auth::Caller;
use crate::control::Control;
use crate::durable::Found;
use crate::scheduler::CallKind;

/// How long a question for outputs of a map is held while nothing is under way. A client that maps
/// over nothing finds that out only when its question is answered.
const EMPTY_MAP_HOLD: Duration = Duration::from_secs(1);
/// Outputs in one answer.
const PAGE: usize = 256;

impl Control {
    pub(super) async fn function_get_outputs(
        &self,
        _: &Caller,
        request: pb::FunctionGetOutputsRequest,
    ) -> Result<pb::FunctionGetOutputsResponse, Status> {
        let call_id = &request.function_call_id;
        // After a restart outputs lie in another order: one who read some before reads all again.
        let cursor = log::entry_number(&request.last_entry_id).checked_sub(self.first_entry);
        let cursor = cursor.and_then(|past| usize::try_from(past).ok()).unwrap_or(0);
        let limit = usize::try_from(request.max_values).ok().filter(|most| *most > 0).unwrap_or(PAGE);
        let range = request.start_idx.zip(request.end_idx);
        let started = tokio::time::Instant::now();
        let mut deadline = started + seconds(request.timeout.into());
        loop {
            let known = self.with_scheduler(|scheduler, now| {
                scheduler.acknowledge_outputs(call_id, cursor, now);
                let call = scheduler.call(call_id)?;
                let answer = (call.page(cursor, limit, range), call.watch(), call.kind);
                if request.clear_on_success && (!answer.0.outputs.is_empty() || request.timeout <= 0.0) {
                    scheduler.release_call(call_id, now);
                }
                Some(answer)
            });
            let Some((page, mut change, kind)) = known else {
                if self.recall(call_id).await? {
                    continue;
                }
                return Ok(self.expired(&request));
            };
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

    /// Sees to it that the scheduler has a call. False if there was one whose results have expired.
    pub(super) async fn recall(&self, call_id: &str) -> Result<bool, Status> {
        if self.with_scheduler(|scheduler, _| scheduler.call(call_id).is_some()) {
            return Ok(true);
        }
        match self.durable.find(call_id, self.clock.now(), self.options.policy.retention).await? {
            Found::Saved(call) => {
                if let Some(function) = self.registry.find_function(call.pool_id()).await? {
                    self.refresh_pool(&function);
                }
                self.with_scheduler(|scheduler, now| call.restore(scheduler, now));
                Ok(true)
            }
            Found::Expired => Ok(false),
            Found::Nothing => Err(missing("call", call_id)),
        }
    }

    /// The answer for a call whose results are gone. Clients take an answer without outputs for
    /// that only at the end of their patience, which may be never; an exception they raise at once.
    fn expired(&self, request: &pb::FunctionGetOutputsRequest) -> pb::FunctionGetOutputsResponse {
        let text = format!(
            "The results of call {} have expired: this server keeps them for {}.",
            request.function_call_id,
            humantime::format_duration(Duration::from_secs(self.options.policy.retention as u64))
        );
        let idx = request.start_idx.unwrap_or(0);
        let result = pb::GenericResult {
            status: pb::generic_result::GenericStatus::Failure.into(),
            data_oneof: Some(pb::generic_result::DataOneof::Data(expired_error(&text).into())),
            exception: text,
            ..Default::default()
        };
        let output = pb::FunctionGetOutputsItem {
            idx,
            result: Some(result),
            data_format: pb::DataFormat::Pickle.into(),
            output_created_at: self.clock.now(),
            ..Default::default()
        };
        pb::FunctionGetOutputsResponse {
            idxs: vec![idx],
            last_entry_id: request.last_entry_id.clone(),
            num_unfinished_inputs: 0,
            outputs: vec![output],
        }
    }
}

/// The client's own exception for results that are gone, pickled: the class, a text, a tuple of the
/// text, the call of the class with it.
fn expired_error(text: &str) -> Vec<u8> {
    let mut pickle = b"\x80\x02cmodal.exception\nOutputExpiredError\nX".to_vec();
    pickle.extend(u32::try_from(text.len()).unwrap_or(0).to_le_bytes());
    pickle.extend(text.as_bytes());
    pickle.extend(b"\x85R.");
    pickle
}
