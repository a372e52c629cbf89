//! Calls: a growing list of inputs, and an append-only list of outputs.

use std::collections::HashMap;

use homeport_proto::client as pb;
use prost::Message as _;

use super::input::{Input, NewInput, Progress};
use super::{Pulse, Scheduler};
use crate::clock::Seconds;

/// Seconds for which an ended container is remembered.
const ENDED_TASK_KEPT: Seconds = 600.0;
/// Seconds for which a call stays whose caller has all it wants: an answer can be lost on its way.
const RELEASED_CALL_KEPT: Seconds = 600.0;
/// The same for a generator's: its reader may be slow.
const RELEASED_GENERATOR_KEPT: Seconds = 3600.0;
/// Seconds between two looks for what may be forgotten.
const FORGET_INTERVAL: Seconds = 5.0;
/// Inputs of one call that may be without output.
const MOST_UNFINISHED: usize = 10_000;
/// Bytes of the arguments of those.
const MOST_UNFINISHED_BYTES: usize = 512 << 20;
/// Bytes of outputs in one page: an answer has to fit into a message.
const PAGE_BYTES: usize = 32 << 20;

/// What a call may still get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// One input.
    Single,
    /// Any number of inputs, put one after another.
    Map,
}

/// A call of a function.
#[derive(Debug)]
pub struct Call {
    /// Its id.
    pub id: String,
    /// The function that was called, as the client names it.
    pub function_id: String,
    /// The app of the function.
    pub app_id: String,
    /// What it may get.
    pub kind: CallKind,
    /// Whether its outputs must be on disk before they are acknowledged.
    pub durable: bool,
    pub(super) inputs: Vec<String>,
    pub(super) unfinished: usize,
    /// Bytes of the arguments of the unfinished inputs.
    pub(super) unfinished_bytes: usize,
    /// The caller said that it needs the outputs no more.
    pub(super) released: bool,
    pub(super) outputs: Vec<pb::FunctionGetOutputsItem>,
    pub(super) chunks: Vec<pb::DataChunk>,
    pub(super) touched: Seconds,
    pub(super) pulse: Pulse,
}

/// A page of outputs from a cursor on.
#[derive(Debug, Default)]
pub struct OutputsPage {
    /// The outputs.
    pub outputs: Vec<pb::FunctionGetOutputsItem>,
    /// Where the next page begins.
    pub next: usize,
    /// Inputs without output.
    pub unfinished: usize,
}

impl Call {
    /// Subscribes to changes of outputs and chunks.
    pub fn watch(&self) -> tokio::sync::watch::Receiver<u64> {
        self.pulse.subscribe()
    }

    /// The number of inputs so far.
    pub fn input_count(&self) -> usize {
        self.inputs.len()
    }

    /// The ids of the inputs, in the order in which they were put.
    pub fn input_ids(&self) -> &[String] {
        &self.inputs
    }

    /// At most `limit` outputs from `cursor` on whose place in the call is in `range`, and no more
    /// than a message carries.
    pub fn page(&self, cursor: usize, limit: usize, range: Option<(i32, i32)>) -> OutputsPage {
        let mut page = OutputsPage { next: cursor, unfinished: self.unfinished, ..Default::default() };
        let mut bytes = 0;
        for output in self.outputs.iter().skip(cursor) {
            if page.outputs.len() == limit || bytes >= PAGE_BYTES {
                break;
            }
            page.next += 1;
            if range.is_none_or(|(first, last)| (first..=last).contains(&output.idx)) {
                bytes += output.encoded_len();
                page.outputs.push(output.clone());
            }
        }
        page
    }

    /// The chunks of a generator after the one numbered `last_index`.
    pub fn chunks_after(&self, last_index: u64) -> Vec<pb::DataChunk> {
        self.chunks.iter().filter(|chunk| chunk.index > last_index).cloned().collect()
    }
}

impl Scheduler {
    /// Opens a call. A call that exists under this id stays as it is.
    pub fn open_call(
        &mut self,
        id: &str,
        function_id: &str,
        app_id: &str,
        kind: CallKind,
        durable: bool,
        now: Seconds,
    ) {
        self.calls.entry(id.to_owned()).or_insert_with(|| Call {
            id: id.to_owned(),
            function_id: function_id.to_owned(),
            app_id: app_id.to_owned(),
            kind,
            durable,
            inputs: Vec::new(),
            unfinished: 0,
            unfinished_bytes: 0,
            released: false,
            outputs: Vec::new(),
            chunks: Vec::new(),
            touched: now,
            pulse: Pulse::default(),
        });
    }

    /// Whether the call can take these inputs now. Those that it has already cost nothing, so that
    /// a repeated request isn't refused for its own first attempt.
    pub fn has_room(&self, call_id: &str, inputs: &[NewInput]) -> bool {
        let Some(call) = self.calls.get(call_id) else { return true };
        let mut new = inputs.iter().filter(|input| !self.inputs.contains_key(&input.id)).peekable();
        if new.peek().is_none() || call.unfinished == 0 {
            return true;
        }
        let (count, bytes) =
            new.fold((0, 0), |(count, bytes), input| (count + 1, bytes + input.payload.encoded_len()));
        call.unfinished + count <= MOST_UNFINISHED && call.unfinished_bytes + bytes <= MOST_UNFINISHED_BYTES
    }

    /// Puts inputs of the call `call_id` into the queue of the pool `pool_id`. Inputs whose id
    /// exists were put before and are left alone. Inputs for an app that was stopped fail at once.
    /// False when there is no such call or pool.
    pub fn put_inputs(&mut self, call_id: &str, pool_id: &str, inputs: Vec<NewInput>, now: Seconds) -> bool {
        let (Some(call), Some(pool)) = (self.calls.get_mut(call_id), self.pools.get_mut(pool_id)) else {
            return false;
        };
        for new in inputs {
            if self.inputs.contains_key(&new.id) {
                continue;
            }
            call.inputs.push(new.id.clone());
            call.unfinished += 1;
            call.unfinished_bytes += new.payload.encoded_len();
            call.touched = now;
            pool.queue.push_back(new.id.clone());
            self.inputs.insert(
                new.id.clone(),
                Input {
                    id: new.id,
                    call_id: call_id.to_owned(),
                    pool_id: pool_id.to_owned(),
                    idx: new.idx,
                    payload: Some(new.payload),
                    progress: Progress::Queued,
                },
            );
        }
        pool.pulse.beat();
        if pool.closed {
            self.fail_queue(pool_id, &super::pool::stopped(), now);
        }
        self.scale(now);
        true
    }

    /// The caller needs the outputs of the call no more.
    pub fn release_call(&mut self, call_id: &str, now: Seconds) {
        if let Some(call) = self.calls.get_mut(call_id) {
            call.released = true;
            call.touched = now;
        }
    }

    /// Puts back what a restart found: inputs with an output are done, the others are queued, or
    /// fail where the function is gone.
    pub fn restore_inputs(
        &mut self,
        call_id: &str,
        pool_id: &str,
        inputs: Vec<NewInput>,
        outputs: Vec<pb::FunctionGetOutputsItem>,
        now: Seconds,
    ) {
        let Some(call) = self.calls.get_mut(call_id) else { return };
        let lost = !self.pools.contains_key(pool_id);
        let mut open = Vec::new();
        let mut done: HashMap<i32, _> = outputs.into_iter().map(|output| (output.idx, output)).collect();
        for new in inputs {
            let done = done.remove(&new.idx);
            if done.is_none() && !lost {
                open.push(new);
                continue;
            }
            let output = done.unwrap_or_else(|| {
                let text = "The app was stopped before the call was finished.".to_owned();
                pb::FunctionGetOutputsItem {
                    idx: new.idx,
                    input_id: new.id.clone(),
                    ..output(failure(text), now)
                }
            });
            call.outputs.push(output);
            call.inputs.push(new.id.clone());
            self.inputs.insert(
                new.id.clone(),
                Input {
                    id: new.id,
                    call_id: call_id.to_owned(),
                    pool_id: pool_id.to_owned(),
                    idx: new.idx,
                    payload: None,
                    progress: Progress::Done,
                },
            );
        }
        self.put_inputs(call_id, pool_id, open, now);
    }

    /// A container brings chunks of a generator. Those of a call that it doesn't serve are ignored:
    /// its input was cancelled or ran out of time.
    pub fn append_chunks(&mut self, task_id: &str, call_id: &str, chunks: Vec<pb::DataChunk>) {
        let serves = self.tasks.get(task_id).is_some_and(|task| {
            task.inputs.iter().any(|id| self.inputs.get(id).is_some_and(|input| input.call_id == call_id))
        });
        let Some(call) = self.calls.get_mut(call_id).filter(|_| serves) else { return };
        let last = call.chunks.last().map_or(0, |chunk| chunk.index);
        // A repeated request brings chunks again that are already there.
        call.chunks.extend(chunks.into_iter().filter(|chunk| chunk.index > last));
        call.pulse.beat();
    }

    /// Gives an input that no queue holds its output, once. The first one counts.
    pub(super) fn conclude(&mut self, input_id: &str, mut output: pb::FunctionGetOutputsItem, now: Seconds) {
        let Some(input) = self.inputs.get_mut(input_id) else {
            return;
        };
        if input.is_done() {
            return;
        }
        if let Progress::Running { task_id, .. } = &input.progress
            && let Some(task) = self.tasks.get_mut(task_id)
        {
            task.inputs.remove(input_id);
            task.idle_since = now;
        }
        input.progress = Progress::Done;
        let payload = input.payload.take();
        output.idx = input.idx;
        output.input_id = input_id.to_owned();
        self.tally.finished(output.result.as_ref());
        if let Some(call) = self.calls.get_mut(&input.call_id) {
            // What a container brings was written before it came here.
            if call.durable && output.task_id.is_empty() {
                self.effects.push(super::Effect::SaveOutput {
                    call_id: call.id.clone(),
                    item: Box::new(output.clone()),
                });
            }
            call.outputs.push(output);
            call.unfinished -= 1;
            call.unfinished_bytes -= payload.map_or(0, |payload| payload.encoded_len());
            call.touched = now;
            call.pulse.beat();
        }
    }

    /// Cancels what is unfinished: queued inputs end at once, the containers of running ones are
    /// told. With `terminate` those containers are ended as well.
    pub fn cancel_call(&mut self, call_id: &str, terminate: bool, now: Seconds) -> bool {
        let Some(call) = self.calls.get(call_id) else {
            return false;
        };
        let inputs = call.inputs.clone();
        for pool in self.pools.values_mut() {
            pool.queue.retain(|id| self.inputs.get(id).is_some_and(|input| input.call_id != call_id));
        }
        for input_id in inputs {
            let Some(input) = self.inputs.get(&input_id) else { continue };
            if let Progress::Running { task_id, .. } = &input.progress {
                let task_id = task_id.clone();
                if let Some(task) = self.tasks.get_mut(&task_id) {
                    task.cancelled.push(input_id.clone());
                    task.pulse.beat();
                }
                if terminate {
                    self.kill(&task_id);
                }
            }
            let result = pb::GenericResult {
                status: pb::generic_result::GenericStatus::Terminated.into(),
                exception: "The call was cancelled.".into(),
                ..Default::default()
            };
            self.conclude(&input_id, output(result, now), now);
        }
        self.scale(now);
        true
    }

    pub(super) fn forget_finished(&mut self, now: Seconds) {
        if now < self.forget_at {
            return;
        }
        self.forget_at = now + FORGET_INTERVAL;
        let kept = |call: &Call| match (call.released, call.chunks.is_empty()) {
            (true, true) => RELEASED_CALL_KEPT,
            (true, false) => RELEASED_GENERATOR_KEPT,
            (false, _) => self.policy.retention,
        };
        let gone: Vec<String> = self
            .calls
            .values()
            .filter(|call| call.unfinished == 0 && now - call.touched > kept(call))
            .map(|call| call.id.clone())
            .collect();
        for id in gone {
            self.forget_call(&id);
        }
        // Ended containers stay for a while for those who ask about them.
        self.tasks.retain(|_, task| {
            task.phase != super::TaskPhase::Ended || now - task.idle_since < ENDED_TASK_KEPT
        });
    }

    /// Whether the app has inputs without output.
    pub fn app_has_work(&self, app_id: &str) -> bool {
        self.calls.values().any(|call| call.app_id == app_id && call.unfinished > 0)
    }

    /// Drops the calls of an app that has ended.
    pub fn forget_app(&mut self, app_id: &str) {
        let gone: Vec<String> = self
            .calls
            .values()
            .filter(|call| call.app_id == app_id && !call.durable)
            .map(|call| call.id.clone())
            .collect();
        for id in gone {
            self.forget_call(&id);
        }
        self.pools.retain(|_, pool| pool.spec.app_id != app_id);
        self.tasks.retain(|_, task| task.app_id != app_id || task.phase != super::TaskPhase::Ended);
    }

    fn forget_call(&mut self, id: &str) {
        if let Some(call) = self.calls.remove(id) {
            for input in &call.inputs {
                self.inputs.remove(input);
            }
            if call.durable {
                self.effects.push(super::Effect::ForgetCall { call_id: call.id });
            }
        }
    }
}

/// An output around a result that the server made.
pub(super) fn output(result: pb::GenericResult, now: Seconds) -> pb::FunctionGetOutputsItem {
    pb::FunctionGetOutputsItem {
        result: Some(result),
        data_format: pb::DataFormat::Pickle.into(),
        output_created_at: now,
        ..Default::default()
    }
}

/// A failure that the server found, in words for the caller.
pub(super) fn failure(text: String) -> pb::GenericResult {
    pb::GenericResult {
        status: pb::generic_result::GenericStatus::Failure.into(),
        exception: text,
        ..Default::default()
    }
}
