//! Calls that must survive: written before they are acknowledged, with their inputs and outputs.
//!
//! A client that waits for its answer repeats a call that was lost with the server. One that went
//! away after `spawn` cannot: its calls are here until they are finished and their retention is over.

use homeport_meta::{Meta, QueryError, calls, inputs, outputs};
use homeport_proto::client as pb;
use homeport_proto::record as rec;
use prost::Message as _;

use crate::clock::Seconds;
use crate::registry::RegistryError;
use crate::scheduler::{CallKind, NewInput, Scheduler};

const OPEN: &str = "open";

/// The durable calls.
#[derive(Debug)]
pub struct Durable {
    meta: Meta,
}

/// A call as it was found after a restart.
#[derive(Debug)]
pub struct SavedCall {
    record: rec::Call,
    inputs: Vec<NewInput>,
    outputs: Vec<pb::FunctionGetOutputsItem>,
}

impl Durable {
    /// The durable calls in `meta`.
    pub fn new(meta: Meta) -> Self {
        Self { meta }
    }

    /// Writes a call with the inputs that it has so far.
    pub async fn save(&self, record: &rec::Call, new: &[NewInput], now: Seconds) -> Result<(), QueryError> {
        let call = calls::Call {
            id: record.id.clone(),
            function_id: record.pool_id.clone(),
            state: OPEN.to_owned(),
            created_at: (now * 1000.0) as i64,
            record: record.encode_to_vec(),
        };
        calls::put_with_inputs(&self.meta, &call, &rows(&record.id, new)).await
    }

    /// Writes further inputs of a durable call.
    pub async fn save_inputs(&self, call_id: &str, new: &[NewInput]) -> Result<(), QueryError> {
        inputs::put_all(&self.meta, &rows(call_id, new)).await
    }

    /// Writes an output.
    pub async fn save_output(
        &self,
        call_id: &str,
        item: &pb::FunctionGetOutputsItem,
    ) -> Result<(), QueryError> {
        let output = outputs::Output {
            call_id: call_id.to_owned(),
            entry: item.idx.into(),
            record: item.encode_to_vec(),
        };
        outputs::put(&self.meta, &output).await
    }

    /// Forgets a call.
    pub async fn forget(&self, call_id: &str) -> Result<(), QueryError> {
        calls::delete(&self.meta, call_id).await.map(drop)
    }

    /// The calls that are kept.
    pub async fn unfinished(&self) -> Result<Vec<SavedCall>, RegistryError> {
        let mut saved = Vec::new();
        for row in calls::list_by_state(&self.meta, OPEN).await? {
            let damaged = |source| RegistryError::Record { id: row.id.clone(), source };
            let record = rec::Call::decode(row.record.as_slice()).map_err(damaged)?;
            let mut new = Vec::new();
            for input in inputs::list_by_call(&self.meta, &row.id).await? {
                let payload = pb::FunctionInput::decode(input.record.as_slice()).map_err(damaged)?;
                new.push(NewInput {
                    id: input.id,
                    idx: i32::try_from(input.idx).unwrap_or(i32::MAX),
                    payload,
                });
            }
            let mut done = Vec::new();
            for output in outputs::list_by_call(&self.meta, &row.id, -1).await? {
                done.push(pb::FunctionGetOutputsItem::decode(output.record.as_slice()).map_err(damaged)?);
            }
            saved.push(SavedCall { record, inputs: new, outputs: done });
        }
        Ok(saved)
    }
}

impl SavedCall {
    /// Puts the call back: what has its output keeps it, the rest is queued again.
    pub fn restore(self, scheduler: &mut Scheduler, now: Seconds) {
        let record = self.record;
        let kind = match record.call_type() {
            pb::FunctionCallType::Map => CallKind::Map,
            _ => CallKind::Single,
        };
        scheduler.open_call(&record.id, &record.function_id, &record.app_id, kind, true, now);
        scheduler.restore_inputs(&record.id, &record.pool_id, self.inputs, self.outputs, now);
    }
}

fn rows(call_id: &str, new: &[NewInput]) -> Vec<inputs::Input> {
    new.iter()
        .map(|input| inputs::Input {
            id: input.id.clone(),
            call_id: call_id.to_owned(),
            idx: input.idx.into(),
            record: input.payload.encode_to_vec(),
        })
        .collect()
}
