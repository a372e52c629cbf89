//! Inputs: the units of work.

use homeport_proto::client as pb;

use crate::clock::Seconds;

/// Where an input is on its way.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Progress {
    Queued,
    Running { task_id: String, since: Seconds },
    Done,
}

/// An input that a client put.
#[derive(Debug, Clone)]
pub struct NewInput {
    /// Its id.
    pub id: String,
    /// Its place in the call.
    pub idx: i32,
    /// The arguments, opaque.
    pub payload: pb::FunctionInput,
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
}

impl Input {
    /// Whether it has its output.
    pub fn is_done(&self) -> bool {
        self.progress == Progress::Done
    }
}
