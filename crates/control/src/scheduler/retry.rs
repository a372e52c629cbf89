//! What happens to an input whose attempt failed: another attempt, or the failure is its output.
//!
//! A failure by the input's own fault (its function raised, took too long, or ended its container)
//! counts against the retries that the function asks for. A container that was taken away from the
//! input does not: the input starts again somewhere else.

use homeport_proto::client as pb;

use super::call::{failure, output};
use super::input::Progress;
use super::{Effect, Scheduler};
use crate::clock::Seconds;

/// The least time between two attempts. Clients that retry by themselves wait no less.
const LEAST_DELAY: Seconds = 1.0;
/// Requests of a container that are known again when they are repeated.
const KEYS_KEPT: usize = 64;
/// How often the container of one input may be lost without its fault.
const MOST_LOSSES: u32 = 8;

/// How often failed inputs of a function are tried again, and when. By default never.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RetryPolicy {
    /// Attempts after the first one.
    pub most: u32,
    /// Seconds before the first of them.
    pub first_delay: Seconds,
    /// By how much each delay is longer than the one before.
    pub factor: f64,
    /// The longest delay, in seconds; 0 means no limit.
    pub longest_delay: Seconds,
}

impl RetryPolicy {
    /// Seconds until the next attempt after so many failures; none if there is no further one.
    pub fn delay_after(&self, failures: u32) -> Option<Seconds> {
        if failures == 0 || failures > self.most {
            return None;
        }
        let exponent = i32::try_from(failures - 1).unwrap_or(i32::MAX);
        let longest = if self.longest_delay > 0.0 { self.longest_delay } else { Seconds::MAX };
        // Without a first delay there is nothing to grow, however large the power.
        let delay =
            if self.first_delay > 0.0 { self.first_delay * self.factor.max(1.0).powi(exponent) } else { 0.0 };
        Some(delay.min(longest).max(LEAST_DELAY))
    }
}

impl From<&pb::FunctionRetryPolicy> for RetryPolicy {
    fn from(policy: &pb::FunctionRetryPolicy) -> Self {
        let seconds = |milliseconds: u32| Seconds::from(milliseconds) / 1000.0;
        Self {
            most: policy.retries,
            first_delay: seconds(policy.initial_delay_ms),
            factor: policy.backoff_coefficient.into(),
            longest_delay: seconds(policy.max_delay_ms),
        }
    }
}

/// Whether another attempt may help.
fn is_failure(result: Option<&pb::GenericResult>) -> bool {
    use pb::generic_result::GenericStatus as Status;
    result.is_some_and(|result| !matches!(result.status(), Status::Success | Status::Terminated))
}

impl Scheduler {
    /// Seconds after which the input is tried again if this is how its attempt ended; none if this
    /// is its output.
    pub(super) fn retry_delay(&self, input_id: &str, result: Option<&pb::GenericResult>) -> Option<Seconds> {
        let input = self.inputs.get(input_id)?;
        let pool = self.pools.get(&input.pool_id)?;
        if input.is_done() || pool.closed || self.closing || !is_failure(result) {
            return None;
        }
        pool.spec.retry.delay_after(input.failures + 1)
    }

    /// Whether a result that this container brings will be the output of its input.
    pub fn is_final(&self, task_id: &str, input_id: &str, result: Option<&pb::GenericResult>) -> bool {
        self.holds(task_id, input_id) && self.retry_delay(input_id, result).is_none()
    }

    /// The input failed and is tried again after `delay`.
    pub(super) fn retry_later(&mut self, input_id: &str, delay: Seconds, now: Seconds) {
        self.leave_task(input_id, now);
        let Some(input) = self.inputs.get_mut(input_id) else { return };
        let due = ((now + delay) * 1e6) as u64;
        input.failures += 1;
        input.progress = Progress::Delayed { due };
        if let Some(pool) = self.pools.get_mut(&input.pool_id) {
            pool.delayed.insert((due, input_id.to_owned()));
        }
        if self.calls.get(&input.call_id).is_some_and(|call| call.durable) {
            self.effects
                .push(Effect::SaveFailures { input_id: input_id.to_owned(), failures: input.failures });
        }
    }

    /// The container of the input was taken away from it: it comes first in its queue again.
    pub(super) fn restart(&mut self, input_id: &str, reason: &str, now: Seconds) {
        let Some(input) = self.inputs.get_mut(input_id).filter(|input| !input.is_done()) else { return };
        let open = self.pools.get(&input.pool_id).filter(|pool| !pool.closed && !pool.spec.is_build);
        if open.is_none() {
            let result = failure(reason.to_owned());
            return self.conclude(input_id, output(result, now), now);
        }
        input.losses += 1;
        if input.losses > MOST_LOSSES {
            let result = pb::GenericResult {
                status: pb::generic_result::GenericStatus::InternalFailure.into(),
                exception: format!("{reason} It was the container number {} of this input.", input.losses),
                ..Default::default()
            };
            return self.finish(input_id, output(result, now), now);
        }
        self.leave_task(input_id, now);
        self.enqueue(input_id, true, now);
    }

    /// Whether the container has brought outputs under this key before.
    pub fn has_brought(&self, task_id: &str, key: Option<&str>) -> bool {
        let brought = self.tasks.get(task_id).map(|task| &task.brought);
        key.zip(brought).is_some_and(|(key, brought)| brought.iter().any(|known| known == key))
    }

    /// The container brings outputs under this key.
    pub fn note_brought(&mut self, task_id: &str, key: Option<&str>) {
        if let (Some(task), Some(key)) = (self.tasks.get_mut(task_id), key) {
            task.brought.push_back(key.to_owned());
            if task.brought.len() > KEYS_KEPT {
                task.brought.pop_front();
            }
        }
    }

    /// Puts inputs whose delay is over back into their queues.
    pub(super) fn release_delayed(&mut self, now: Seconds) {
        let due = (now * 1e6) as u64;
        let mut ready: Vec<(u64, String)> = Vec::new();
        for pool in self.pools.values_mut().filter(|pool| !pool.delayed.is_empty()) {
            let later = pool.delayed.split_off(&(due + 1, String::new()));
            ready.extend(std::mem::replace(&mut pool.delayed, later));
        }
        ready.sort();
        for (_, input_id) in ready {
            self.enqueue(&input_id, false, now);
        }
    }

    /// Gives the inputs of a pool that wait for another attempt a failure instead.
    pub(super) fn fail_delayed(&mut self, pool_id: &str, result: &pb::GenericResult, now: Seconds) {
        let Some(pool) = self.pools.get_mut(pool_id) else { return };
        for (_, input_id) in std::mem::take(&mut pool.delayed) {
            self.finish(&input_id, output(result.clone(), now), now);
        }
    }

    fn enqueue(&mut self, input_id: &str, first: bool, now: Seconds) {
        let Some(input) = self.inputs.get_mut(input_id) else { return };
        input.progress = Progress::Queued;
        input.queued_at = now;
        let Some(pool) = self.pools.get_mut(&input.pool_id) else { return };
        if first {
            pool.queue.push_front(input_id.to_owned());
        } else {
            pool.queue.push_back(input_id.to_owned());
        }
        pool.pulse.beat();
        self.demanding.insert(input.pool_id.clone());
    }

    /// The container that has the input, if any, has it no more.
    pub(super) fn leave_task(&mut self, input_id: &str, now: Seconds) {
        if let Some(Progress::Running { task_id, .. }) =
            self.inputs.get(input_id).map(|input| &input.progress)
            && let Some(task) = self.tasks.get_mut(task_id)
        {
            task.inputs.remove(input_id);
            task.idle_since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_up_to_the_longest_and_end_after_the_last_attempt() {
        let policy = RetryPolicy { most: 4, first_delay: 1.5, factor: 2.0, longest_delay: 5.0 };
        let delays: Vec<_> = (0..=5).map(|failures| policy.delay_after(failures)).collect();
        assert_eq!(delays, [None, Some(1.5), Some(3.0), Some(5.0), Some(5.0), None]);
    }

    #[test]
    fn absurd_numbers_give_a_delay_too() {
        let none = RetryPolicy { most: u32::MAX, factor: 10.0, ..RetryPolicy::default() };
        assert_eq!(none.delay_after(u32::MAX), Some(LEAST_DELAY));
        let wild = RetryPolicy { most: 1, first_delay: 1.0, factor: f64::NAN, longest_delay: 0.0 };
        assert_eq!(wild.delay_after(1), Some(1.0));
        assert_eq!(RetryPolicy::default().delay_after(1), None);
    }
}
