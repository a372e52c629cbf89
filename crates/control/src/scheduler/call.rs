//! Calls: a growing list of inputs, and an append-only list of outputs.

use homeport_proto::client as pb;

use super::input::{Input, NewInput, Progress};
use super::{Pulse, Scheduler};
use crate::clock::Seconds;

/// Seconds for which an ended container is remembered.
const ENDED_TASK_KEPT: Seconds = 600.0;

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

    /// At most `limit` outputs from `cursor` on whose place in the call is in `range`.
    pub fn page(&self, cursor: usize, limit: usize, range: Option<(i32, i32)>) -> OutputsPage {
        let mut page = OutputsPage { next: cursor, unfinished: self.unfinished, ..Default::default() };
        for output in self.outputs.iter().skip(cursor) {
            if page.outputs.len() == limit {
                break;
            }
            page.next += 1;
            if range.is_none_or(|(first, last)| (first..=last).contains(&output.idx)) {
                page.outputs.push(output.clone());
            }
        }
        page
    }

    /// The chunks of a generator after the one numbered `last_index`.
    pub fn chunks_after(&self, last_index: u64) -> Vec<pb::DataChunk> {
        self.chunks.iter().filter(|chunk| chunk.index > last_index).cloned().collect()
    }

    /// Whether nothing can come any more from what was put so far.
    pub fn is_settled(&self) -> bool {
        self.unfinished == 0 && !self.inputs.is_empty()
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
            outputs: Vec::new(),
            chunks: Vec::new(),
            touched: now,
            pulse: Pulse::default(),
        });
    }

    /// Puts inputs of the call `call_id` into the queue of the pool `pool_id`. Inputs whose id
    /// exists were put before and are left alone. False when there is no such call or pool.
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
        self.scale(now);
        true
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
        for new in inputs {
            let done = outputs.iter().find(|output| output.idx == new.idx);
            if done.is_none() && !lost {
                open.push(new);
                continue;
            }
            let output = done.cloned().unwrap_or_else(|| {
                let text = "The app was stopped before the call was finished.".to_owned();
                pb::FunctionGetOutputsItem { idx: new.idx, input_id: new.id.clone(), ..output(failure(text), now) }
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

    /// Appends chunks of a generator to the call.
    pub fn append_chunks(&mut self, call_id: &str, chunks: Vec<pb::DataChunk>) -> bool {
        let Some(call) = self.calls.get_mut(call_id) else {
            return false;
        };
        let last = call.chunks.last().map_or(0, |chunk| chunk.index);
        // A repeated request brings chunks again that are already there.
        call.chunks.extend(chunks.into_iter().filter(|chunk| chunk.index > last));
        call.pulse.beat();
        true
    }

    /// Gives an input its output, once. The first one counts.
    pub(super) fn settle(&mut self, input_id: &str, mut output: pb::FunctionGetOutputsItem, now: Seconds) {
        let Some(input) = self.inputs.get_mut(input_id) else {
            return;
        };
        if input.is_done() {
            return;
        }
        if input.progress == Progress::Queued
            && let Some(pool) = self.pools.get_mut(&input.pool_id)
        {
            pool.queue.retain(|queued| queued != input_id);
        }
        if let Progress::Running { task_id, .. } = &input.progress
            && let Some(task) = self.tasks.get_mut(task_id)
        {
            task.inputs.remove(input_id);
            task.idle_since = now;
        }
        input.progress = Progress::Done;
        input.payload = None;
        output.idx = input.idx;
        output.input_id = input_id.to_owned();
        if let Some(call) = self.calls.get_mut(&input.call_id) {
            // What a container brings was written before it came here.
            if call.durable && output.task_id.is_empty() {
                self.effects.push(super::Effect::SaveOutput { call_id: call.id.clone(), item: Box::new(output.clone()) });
            }
            call.outputs.push(output);
            call.unfinished -= 1;
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
        for input_id in call.inputs.clone() {
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
            self.settle(&input_id, output(result, now), now);
        }
        self.scale(now);
        true
    }

    pub(super) fn forget_finished(&mut self, now: Seconds) {
        let oldest = now - self.policy.retention;
        let gone: Vec<String> = self
            .calls
            .values()
            .filter(|call| call.unfinished == 0 && call.touched < oldest)
            .map(|call| call.id.clone())
            .collect();
        for id in gone {
            self.forget_call(&id);
        }
        // Ended containers stay for a while for those who ask about them.
        self.tasks.retain(|_, task| task.phase != super::TaskPhase::Ended || now - task.idle_since < ENDED_TASK_KEPT);
    }

    /// Whether the app has inputs without output.
    pub fn app_has_work(&self, app_id: &str) -> bool {
        self.calls.values().any(|call| call.app_id == app_id && call.unfinished > 0)
    }

    /// Drops the calls of an app that has ended.
    pub fn forget_app(&mut self, app_id: &str) {
        let gone: Vec<String> =
            self.calls.values().filter(|call| call.app_id == app_id && !call.durable).map(|call| call.id.clone()).collect();
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
