//! Calls: a growing list of inputs, and an append-only list of outputs.

use std::collections::{BTreeMap, VecDeque};

use homeport_proto::client as pb;
use prost::Message as _;

use super::places::Places;
use super::stream::Chunks;
use super::{Input, Pulse, Scheduler};
use crate::clock::Seconds;

/// Bytes of outputs in one page: an answer has to fit into a message.
const PAGE_BYTES: usize = 32 << 20;
/// Inputs of a call that stay known after their outputs were read, for who asks how the call went.
const KNOWN_INPUTS: usize = 1000;

/// What a call may still get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// One input.
    Single,
    /// Any number of inputs, put one after another.
    Map,
}

/// A call that is opened.
#[derive(Debug, Clone)]
pub struct NewCall {
    /// Its id.
    pub id: String,
    /// The function that is called, as the client names it.
    pub function_id: String,
    /// The app of the function.
    pub app_id: String,
    /// The input whose function made the call; empty for a call from outside.
    pub parent_input_id: String,
    /// What it may get.
    pub kind: CallKind,
    /// Whether its outputs must be on disk before they are acknowledged.
    pub durable: bool,
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
    /// The input whose function made the call; empty for a call from outside.
    pub parent_input_id: String,
    /// What it may get.
    pub kind: CallKind,
    /// Whether its outputs must be on disk before they are acknowledged.
    pub durable: bool,
    /// Those that are known by id: all that are unfinished, and most others.
    pub(super) inputs: BTreeMap<i32, String>,
    /// The places of inputs that are finished, read and forgotten.
    pub(super) forgotten: Places,
    pub(super) unfinished: usize,
    /// Bytes of the arguments of the unfinished inputs.
    pub(super) unfinished_bytes: usize,
    /// The caller said that it needs the outputs no more.
    pub(super) released: bool,
    pub(super) outputs: VecDeque<pb::FunctionGetOutputsItem>,
    /// Outputs that came before those in the list; their reader has them.
    pub(super) outputs_read: usize,
    pub(super) chunks: Chunks,
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
    pub(super) fn new(new: NewCall, now: Seconds) -> Self {
        Self {
            id: new.id,
            function_id: new.function_id,
            app_id: new.app_id,
            parent_input_id: new.parent_input_id,
            kind: new.kind,
            durable: new.durable,
            inputs: BTreeMap::new(),
            forgotten: Places::default(),
            unfinished: 0,
            unfinished_bytes: 0,
            released: false,
            outputs: VecDeque::new(),
            outputs_read: 0,
            chunks: Chunks::default(),
            touched: now,
            pulse: Pulse::default(),
        }
    }

    /// Subscribes to changes of outputs and chunks.
    pub fn watch(&self) -> tokio::sync::watch::Receiver<u64> {
        self.pulse.subscribe()
    }

    /// The number of inputs so far.
    pub fn input_count(&self) -> usize {
        self.inputs.len() + self.forgotten.len()
    }

    /// The ids of the inputs that are known, by their place in the call.
    pub fn input_ids(&self) -> impl Iterator<Item = &String> {
        self.inputs.values()
    }

    /// At most `limit` outputs from `cursor` on whose place in the call is in `range`, and no more
    /// than a message carries.
    pub fn page(&self, cursor: usize, limit: usize, range: Option<(i32, i32)>) -> OutputsPage {
        let cursor = cursor.max(self.outputs_read);
        let mut page = OutputsPage { next: cursor, unfinished: self.unfinished, ..Default::default() };
        let mut bytes = 0;
        for output in self.outputs.iter().skip(cursor - self.outputs_read) {
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
}

impl Scheduler {
    /// The reader of a call's outputs has all before `cursor`. Where nobody else can ask for them
    /// they go, so that a long map needs no more memory than a short one.
    pub fn acknowledge_outputs(&mut self, call_id: &str, cursor: usize, now: Seconds) {
        let Some(call) = self.calls.get_mut(call_id) else { return };
        call.touched = now;
        if call.durable || call.kind != CallKind::Map {
            return;
        }
        while call.outputs_read < cursor
            && let Some(output) = call.outputs.pop_front()
        {
            call.outputs_read += 1;
            if call.inputs.len() > KNOWN_INPUTS {
                call.inputs.remove(&output.idx);
                call.forgotten.insert(output.idx);
                self.inputs.remove(&output.input_id);
            }
        }
    }

    /// The inputs of a call that have no output yet.
    pub fn unfinished_inputs(&self, call_id: &str) -> Vec<&Input> {
        let ids = self.calls.get(call_id).into_iter().flat_map(Call::input_ids);
        ids.filter_map(|id| self.inputs.get(id)).filter(|input| !input.is_done()).collect()
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

/// What inputs get whose call was cancelled.
pub fn cancelled() -> pb::GenericResult {
    pb::GenericResult {
        status: pb::generic_result::GenericStatus::Terminated.into(),
        exception: "The call was cancelled.".into(),
        ..Default::default()
    }
}
