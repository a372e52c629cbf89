//! How calls and their inputs come in: from clients, and from before a restart.

use std::collections::HashMap;

use homeport_proto::client as pb;
use prost::Message as _;

use super::call::{Call, failure, output};
use super::input::{Input, Progress};
use super::{NewCall, NewInput, SavedInput, Scheduler};
use crate::clock::Seconds;

/// Inputs of one call that may be without output, and outputs of it that may wait for their reader.
const MOST_UNFINISHED: usize = 10_000;
/// Bytes of the arguments of those.
const MOST_UNFINISHED_BYTES: usize = 512 << 20;

impl Scheduler {
    /// Opens a call. A call that exists under this id stays as it is.
    pub fn open_call(&mut self, new: NewCall, now: Seconds) {
        self.calls.entry(new.id.clone()).or_insert_with(|| Call::new(new, now));
    }

    /// Whether the call can take these inputs now. Those that it has already cost nothing, so that
    /// a repeated request isn't refused for its own first attempt.
    pub fn has_room(&self, call_id: &str, inputs: &[NewInput]) -> bool {
        let Some(call) = self.calls.get(call_id) else { return true };
        let mut new = inputs.iter().filter(|input| !call.has_place(input.idx)).peekable();
        // Outputs that nobody reads fill memory as inputs do that nobody serves.
        let unread = if call.durable { 0 } else { call.outputs.len() };
        if new.peek().is_none() || call.unfinished + unread == 0 {
            return true;
        }
        let (count, bytes) =
            new.fold((0, 0), |(count, bytes), input| (count + 1, bytes + input.payload.encoded_len()));
        call.unfinished + unread + count <= MOST_UNFINISHED
            && call.unfinished_bytes + bytes <= MOST_UNFINISHED_BYTES
    }

    /// Puts inputs of the call `call_id` into the queue of the pool `pool_id`. Inputs whose place is
    /// taken were put before and are left alone. Inputs for an app that was stopped fail at once.
    /// False when there is no such call or pool.
    pub fn put_inputs(&mut self, call_id: &str, pool_id: &str, inputs: Vec<NewInput>, now: Seconds) -> bool {
        let inputs = inputs.into_iter().map(|input| SavedInput { input, failures: 0 }).collect();
        self.queue_inputs(call_id, pool_id, inputs, now)
    }

    fn queue_inputs(&mut self, call_id: &str, pool_id: &str, inputs: Vec<SavedInput>, now: Seconds) -> bool {
        let (Some(call), Some(pool)) = (self.calls.get_mut(call_id), self.pools.get_mut(pool_id)) else {
            return false;
        };
        for saved in inputs {
            let new = &saved.input;
            if call.has_place(new.idx) {
                continue;
            }
            call.inputs.insert(new.idx, new.id.clone());
            call.unfinished += 1;
            call.unfinished_bytes += new.payload.encoded_len();
            call.touched = now;
            let id = new.id.clone();
            pool.queue.push_back(id.clone());
            self.inputs.insert(id, Input::queued(saved, call_id, pool_id, now));
        }
        pool.touched = now;
        pool.pulse.beat();
        if pool.closed {
            self.fail_queue(pool_id, &super::pool::stopped(), now);
        }
        self.demanding.insert(pool_id.to_owned());
        self.scale(now);
        true
    }

    /// Puts back what a restart found: inputs with an output are done, the others are queued, or
    /// fail where the function is gone.
    pub fn restore_inputs(
        &mut self,
        call_id: &str,
        pool_id: &str,
        inputs: Vec<SavedInput>,
        outputs: Vec<pb::FunctionGetOutputsItem>,
        now: Seconds,
    ) {
        let lost = !self.pools.contains_key(pool_id);
        let Some(call) = self.calls.get_mut(call_id) else { return };
        let mut open = Vec::new();
        let mut done: HashMap<i32, _> = outputs.into_iter().map(|output| (output.idx, output)).collect();
        for saved in inputs {
            let done = done.remove(&saved.input.idx);
            if done.is_none() && !lost {
                open.push(saved);
                continue;
            }
            let new = &saved.input;
            let output = done.unwrap_or_else(|| {
                let text = "The app was stopped before the call was finished.".to_owned();
                pb::FunctionGetOutputsItem {
                    idx: new.idx,
                    input_id: new.id.clone(),
                    ..output(failure(text), now)
                }
            });
            let status = output.result.as_ref().map(pb::GenericResult::status).unwrap_or_default();
            let progress = Progress::Done { status, task_id: output.task_id.clone() };
            call.outputs.push_back(output);
            call.inputs.insert(new.idx, new.id.clone());
            let input = Input::queued(saved, call_id, pool_id, now);
            self.inputs.insert(input.id.clone(), Input { payload: None, progress, ..input });
        }
        self.queue_inputs(call_id, pool_id, open, now);
    }
}

impl Call {
    fn has_place(&self, idx: i32) -> bool {
        self.inputs.contains_key(&idx) || self.forgotten.contains(idx)
    }
}
