//! Calls that must survive: written before they are acknowledged, with their inputs and outputs.
//!
//! A client that waits for its answer repeats a call that was lost with the server. One that went
//! away after `spawn` cannot: its calls are here until the retention of their results is over. What
//! nobody asked for lately is here only, and comes back into the scheduler when somebody asks.

use std::sync::atomic::{AtomicI64, Ordering};

use homeport_meta::{Meta, QueryError, calls, inputs, outputs};
use homeport_proto::client as pb;
use homeport_proto::record as rec;
use prost::Message as _;

use crate::clock::Seconds;
use crate::control::Control;
use crate::registry::RegistryError;
use crate::scheduler::{CallKind, Effect, NewCall, NewInput, SavedInput, Scheduler};

/// Inputs of it may be without output.
const OPEN: &str = "open";
/// It is over, and its results are kept.
const DONE: &str = "done";
/// Its results are gone. That there was such a call is known for a while.
const EXPIRED: &str = "expired";
/// For so many times their retention, results that are gone are remembered as such.
const EXPIRED_KEPT: f64 = 4.0;
/// Between two looks for results whose time is over.
const SWEEP_INTERVAL: Seconds = 60.0;

/// The durable calls.
#[derive(Debug)]
pub struct Durable {
    meta: Meta,
    /// When results are looked through next, in milliseconds since the epoch.
    next_sweep: AtomicI64,
}

/// What is known of a call that the scheduler doesn't have.
#[derive(Debug)]
pub enum Found {
    /// Everything.
    Saved(Box<SavedCall>),
    /// Its results were kept for their time.
    Expired,
    /// There is no such call.
    Nothing,
}

/// A call as it was found on disk.
#[derive(Debug)]
pub struct SavedCall {
    record: rec::Call,
    inputs: Vec<SavedInput>,
    outputs: Vec<pb::FunctionGetOutputsItem>,
}

impl Durable {
    /// The durable calls in `meta`.
    pub fn new(meta: Meta) -> Self {
        Self { meta, next_sweep: AtomicI64::new(0) }
    }

    /// Writes a call with the inputs that it has so far.
    pub async fn save(&self, record: &rec::Call, new: &[NewInput], now: Seconds) -> Result<(), QueryError> {
        let call = calls::Call {
            id: record.id.clone(),
            function_id: record.pool_id.clone(),
            state: OPEN.to_owned(),
            created_at: milliseconds(now),
            finished_at: 0,
            record: record.encode_to_vec(),
        };
        calls::put_with_inputs(&self.meta, &call, &rows(&record.id, new)).await
    }

    /// Writes further inputs of a durable call.
    pub async fn save_inputs(&self, call_id: &str, new: &[NewInput]) -> Result<(), QueryError> {
        inputs::add(&self.meta, call_id, OPEN, &rows(call_id, new)).await
    }

    /// Writes outputs, each with the call it belongs to. An output that is there stays as it is.
    pub async fn save_outputs(
        &self,
        items: &[(String, pb::FunctionGetOutputsItem)],
    ) -> Result<(), QueryError> {
        let output = |(call_id, item): &(String, pb::FunctionGetOutputsItem)| outputs::Output {
            call_id: call_id.clone(),
            entry: item.idx.into(),
            record: item.encode_to_vec(),
        };
        outputs::put_all(&self.meta, &items.iter().map(output).collect::<Vec<_>>()).await
    }

    /// Writes what the scheduler wants written without anybody waiting for it.
    pub async fn carry_out(&self, effect: Effect) {
        let (id, written) = match effect {
            Effect::SaveOutput { call_id, item } => {
                let id = call_id.clone();
                (id, self.save_outputs(&[(call_id, *item)]).await)
            }
            Effect::SaveFailures { input_id, failures } => {
                let written = inputs::set_failures(&self.meta, &input_id, failures.into()).await;
                (input_id, written)
            }
            Effect::ParkCall { call_id, finished_at } => {
                let at = milliseconds(finished_at);
                let moved = calls::finish(&self.meta, &call_id, OPEN, DONE, at).await;
                (call_id, moved.map(drop))
            }
            Effect::ForgetCall { call_id } => {
                let gone = calls::delete(&self.meta, &call_id).await;
                (call_id, gone.map(drop))
            }
            _ => return,
        };
        if let Err(error) = written {
            tracing::warn!(id, %error, "what became of a call could not be written");
        }
    }

    /// Drops the results of calls that were over more than `retention` seconds ago.
    pub async fn expire(&self, now: Seconds, retention: Seconds) -> Result<u64, QueryError> {
        let forgotten = milliseconds(now - retention * (1.0 + EXPIRED_KEPT));
        calls::delete_before(&self.meta, EXPIRED, forgotten).await?;
        calls::expire(&self.meta, DONE, EXPIRED, milliseconds(now - retention)).await
    }

    /// The call `id`, wherever it is in its life.
    pub async fn find(&self, id: &str, now: Seconds, retention: Seconds) -> Result<Found, RegistryError> {
        let is_old = |row: &calls::Call| {
            row.state == EXPIRED || row.state == DONE && row.finished_at < milliseconds(now - retention)
        };
        match calls::get(&self.meta, id).await? {
            None => Ok(Found::Nothing),
            Some(row) if is_old(&row) => Ok(Found::Expired),
            Some(row) => Ok(Found::Saved(Box::new(self.read(&row).await?))),
        }
    }

    /// The calls that may have something left to do.
    pub async fn unfinished(&self) -> Result<Vec<SavedCall>, RegistryError> {
        let mut saved = Vec::new();
        for row in calls::list_by_state(&self.meta, OPEN).await? {
            saved.push(self.read(&row).await?);
        }
        Ok(saved)
    }

    async fn read(&self, row: &calls::Call) -> Result<SavedCall, RegistryError> {
        let damaged = |source| RegistryError::Record { id: row.id.clone(), source };
        let record = rec::Call::decode(row.record.as_slice()).map_err(damaged)?;
        let mut saved = Vec::new();
        for input in inputs::list_by_call(&self.meta, &row.id).await? {
            let payload = pb::FunctionInput::decode(input.record.as_slice()).map_err(damaged)?;
            saved.push(SavedInput {
                input: NewInput { id: input.id, idx: i32::try_from(input.idx).unwrap_or(i32::MAX), payload },
                failures: u32::try_from(input.failures).unwrap_or(0),
            });
        }
        let mut done = Vec::new();
        for output in outputs::list_by_call(&self.meta, &row.id, -1).await? {
            done.push(pb::FunctionGetOutputsItem::decode(output.record.as_slice()).map_err(damaged)?);
        }
        Ok(SavedCall { record, inputs: saved, outputs: done })
    }
}

impl Control {
    /// Drops results whose time is over, beside the caller.
    pub(crate) fn look_after_results(&self) {
        let now = self.clock.now();
        let next = &self.durable.next_sweep;
        if milliseconds(now) < next.load(Ordering::Relaxed) {
            return;
        }
        next.store(milliseconds(now + SWEEP_INTERVAL), Ordering::Relaxed);
        let control = self.clone();
        tokio::spawn(async move {
            match control.durable.expire(now, control.options.policy.retention).await {
                Ok(0) => {}
                Ok(count) => tracing::info!(calls = count, "results of old calls were dropped"),
                Err(error) => tracing::warn!(%error, "results of old calls could not be dropped"),
            }
        });
    }
}

impl SavedCall {
    /// The pool that serves it.
    pub fn pool_id(&self) -> &str {
        &self.record.pool_id
    }

    /// Puts the call back: what has its output keeps it, the rest is queued again. A call that is
    /// there stays as it is.
    pub fn restore(self, scheduler: &mut Scheduler, now: Seconds) {
        let record = self.record;
        if scheduler.call(&record.id).is_some() {
            return;
        }
        let kind = match record.call_type() {
            pb::FunctionCallType::Map => CallKind::Map,
            _ => CallKind::Single,
        };
        let call = NewCall {
            id: record.id.clone(),
            function_id: record.function_id,
            app_id: record.app_id,
            parent_input_id: record.parent_input_id,
            kind,
            durable: true,
        };
        scheduler.open_call(call, now);
        scheduler.restore_inputs(&record.id, &record.pool_id, self.inputs, self.outputs, now);
    }
}

fn rows(call_id: &str, new: &[NewInput]) -> Vec<inputs::Input> {
    new.iter()
        .map(|input| inputs::Input {
            id: input.id.clone(),
            call_id: call_id.to_owned(),
            idx: input.idx.into(),
            failures: 0,
            record: input.payload.encode_to_vec(),
        })
        .collect()
}

fn milliseconds(time: Seconds) -> i64 {
    (time * 1000.0) as i64
}
