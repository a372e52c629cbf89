//! Inputs: the units of work.

use homeport_proto::client as pb;

use crate::clock::Seconds;

/// Where an input is on its way.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Progress {
    Queued,
    Running {
        task_id: String,
        since: Seconds,
    },
    /// It failed and is tried again; its place in the set of its pool's delayed inputs.
    Delayed {
        due: u64,
    },
    /// It has its output; how it ended, and where.
    Done {
        status: pb::generic_result::GenericStatus,
        task_id: String,
    },
}

/// An input that a client put.
#[derive(Debug, Clone)]
pub struct NewInput {
    /// Its id.
    pub id: String,
    /// Its place in the call. A call has one input for each place.
    pub idx: i32,
    /// The arguments, opaque.
    pub payload: pb::FunctionInput,
}

/// An input that a restart found.
#[derive(Debug, Clone)]
pub struct SavedInput {
    /// What the client put.
    pub input: NewInput,
    /// How often it has failed.
    pub failures: u32,
}

/// An input of a call.
#[derive(Debug)]
pub struct Input {
    /// Its id.
    pub id: String,
    /// The call it belongs to.
    pub call_id: String,
    /// The pool that serves it.
    pub pool_id: String,
    /// Its place in the call.
    pub idx: i32,
    /// The arguments; dropped when the input is done.
    pub payload: Option<pb::FunctionInput>,
    pub(super) progress: Progress,
    /// When it was put, or came back to its queue.
    pub(super) queued_at: Seconds,
    /// How often it has failed by its own fault: what its function's retries are counted by.
    pub(super) failures: u32,
    /// How often its container was lost without its fault.
    pub(super) losses: u32,
}

impl Input {
    pub(super) fn queued(saved: SavedInput, call_id: &str, pool_id: &str, now: Seconds) -> Self {
        let SavedInput { input: new, failures } = saved;
        Self {
            id: new.id,
            call_id: call_id.to_owned(),
            pool_id: pool_id.to_owned(),
            idx: new.idx,
            payload: Some(new.payload),
            progress: Progress::Queued,
            queued_at: now,
            failures,
            losses: 0,
        }
    }

    /// Whether it has its output.
    pub fn is_done(&self) -> bool {
        matches!(self.progress, Progress::Done { .. })
    }

    /// How it ended; `Unspecified` before.
    pub fn status(&self) -> pb::generic_result::GenericStatus {
        match &self.progress {
            Progress::Done { status, .. } => *status,
            _ => pb::generic_result::GenericStatus::Unspecified,
        }
    }

    /// The container that has it or had it at last; empty if there was none.
    pub fn task_id(&self) -> &str {
        match &self.progress {
            Progress::Running { task_id, .. } | Progress::Done { task_id, .. } => task_id,
            Progress::Queued | Progress::Delayed { .. } => "",
        }
    }

    /// How often it was given to a container before: containers tell attempts apart by it.
    pub(super) fn attempt(&self) -> u32 {
        self.failures.saturating_add(self.losses)
    }
}
