//! How inputs end, and their calls.

use homeport_proto::client as pb;
use prost::Message as _;

use super::call::{cancelled, output};
use super::input::Progress;
use super::{Call, Effect, Scheduler, TaskPhase};
use crate::clock::Seconds;

/// Seconds for which an ended container is remembered.
const ENDED_TASK_KEPT: Seconds = 600.0;
/// Seconds for which a call stays whose caller has all it wants: an answer can be lost on its way,
/// and a client asks again within a minute.
const RELEASED_CALL_KEPT: Seconds = 90.0;
/// The same for a generator whose reader is slow.
const UNREAD_GENERATOR_KEPT: Seconds = 3600.0;
/// Seconds after which a finished durable call is on disk only, if it is still there.
const DURABLE_CALL_KEPT: Seconds = 600.0;
/// Seconds for which the results of another call wait for a caller that never said it has them.
const UNREAD_CALL_KEPT: Seconds = 24.0 * 3600.0;
/// Seconds between two looks for what may be forgotten.
const FORGET_INTERVAL: Seconds = 5.0;
/// Seconds that a container has to let go of an input that was cancelled.
const CANCELLATION_PATIENCE: Seconds = 10.0;

impl Scheduler {
    /// An attempt of an input that no queue holds is over: the input is tried again if it failed and
    /// its function asks for that, else this is its output.
    pub(super) fn conclude(&mut self, input_id: &str, output: pb::FunctionGetOutputsItem, now: Seconds) {
        match self.retry_delay(input_id, output.result.as_ref()) {
            Some(delay) => self.retry_later(input_id, delay, now),
            None => self.finish(input_id, output, now),
        }
    }

    /// Gives an input that no queue holds its output, once. The first one counts.
    pub(super) fn finish(&mut self, input_id: &str, mut output: pb::FunctionGetOutputsItem, now: Seconds) {
        self.leave_task(input_id, now);
        let Some(input) = self.inputs.get_mut(input_id).filter(|input| !input.is_done()) else { return };
        if let Progress::Delayed { due } = input.progress
            && let Some(pool) = self.pools.get_mut(&input.pool_id)
        {
            pool.delayed.remove(&(due, input_id.to_owned()));
        }
        let status = output.result.as_ref().map(pb::GenericResult::status).unwrap_or_default();
        let task_id = if output.task_id.is_empty() { input.task_id() } else { &output.task_id };
        input.progress = Progress::Done { status, task_id: task_id.to_owned() };
        let payload = input.payload.take();
        output.idx = input.idx;
        output.input_id = input_id.to_owned();
        self.tally.finished(output.result.as_ref(), now - input.queued_at);
        if let Some(call) = self.calls.get_mut(&input.call_id) {
            // What a container brings was written before it came here.
            if call.durable && output.task_id.is_empty() {
                self.effects
                    .push(Effect::SaveOutput { call_id: call.id.clone(), item: Box::new(output.clone()) });
            }
            call.outputs.push_back(output);
            call.unfinished -= 1;
            call.unfinished_bytes -= payload.map_or(0, |payload| payload.encoded_len());
            call.touched = now;
            call.pulse.beat();
        }
    }

    /// The caller needs the outputs of the call no more.
    pub fn release_call(&mut self, call_id: &str, now: Seconds) {
        if let Some(call) = self.calls.get_mut(call_id) {
            call.released = true;
            call.touched = now;
        }
    }

    /// Cancels what is unfinished: queued inputs end at once, the containers of running ones are
    /// told, and ended if they don't let go of them. With `terminate` those containers are ended at
    /// once; what else they hold starts again somewhere else.
    pub fn cancel_call(&mut self, call_id: &str, terminate: bool, now: Seconds) -> bool {
        if !self.calls.contains_key(call_id) {
            return false;
        }
        let open: Vec<(String, String)> = self
            .unfinished_inputs(call_id)
            .iter()
            .map(|input| (input.id.clone(), input.task_id().to_owned()))
            .collect();
        for pool in self.pools.values_mut() {
            pool.queue.retain(|id| self.inputs.get(id).is_some_and(|input| input.call_id != call_id));
        }
        for (input_id, task_id) in open {
            if let Some(task) = self.tasks.get_mut(&task_id) {
                task.cancelled.push(input_id.clone());
                task.cancelling.insert(input_id.clone(), now + CANCELLATION_PATIENCE);
                task.pulse.beat();
                if terminate {
                    self.kill(&task_id);
                }
            }
            self.finish(&input_id, output(cancelled(), now), now);
        }
        self.scale(now);
        true
    }

    /// Ends containers that don't let go of cancelled inputs.
    pub(super) fn enforce_cancellations(&mut self, now: Seconds) {
        let mut stuck = Vec::new();
        for task in self.tasks.values_mut().filter(|task| !task.cancelling.is_empty()) {
            if task.phase != TaskPhase::Ended && task.cancelling.values().any(|deadline| now > *deadline) {
                stuck.push(task.id.clone());
                task.cancelling.clear();
            }
        }
        for task_id in stuck {
            self.kill(&task_id);
        }
    }

    pub(super) fn forget_finished(&mut self, now: Seconds) {
        if now < self.forget_at {
            return;
        }
        self.forget_at = now + FORGET_INTERVAL;
        let kept = |call: &Call| match (call.released, call.durable) {
            (true, _) if call.chunks.has_waiting() => UNREAD_GENERATOR_KEPT,
            (true, _) => RELEASED_CALL_KEPT,
            (false, true) => self.policy.retention.min(DURABLE_CALL_KEPT),
            (false, false) => UNREAD_CALL_KEPT,
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
        self.tasks
            .retain(|_, task| task.phase != TaskPhase::Ended || now - task.idle_since < ENDED_TASK_KEPT);
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
        self.tasks.retain(|_, task| task.app_id != app_id || task.phase != TaskPhase::Ended);
    }

    fn forget_call(&mut self, id: &str) {
        if let Some(call) = self.calls.remove(id) {
            for input in call.inputs.values() {
                self.inputs.remove(input);
            }
            if call.durable {
                let (call_id, finished_at) = (call.id, call.touched);
                self.effects.push(if call.released {
                    Effect::ForgetCall { call_id }
                } else {
                    Effect::ParkCall { call_id, finished_at }
                });
            }
        }
    }
}
