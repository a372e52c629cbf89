//! What the scheduler wants done outside.

use super::pool::GpuDemand;

/// How to end a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignal {
    /// Let it run its exit hooks.
    Interrupt,
    /// At once.
    Kill,
}

/// A container to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The task.
    pub task_id: String,
    /// The function that it serves; for class parameters the bound one.
    pub function_id: String,
    /// Where.
    pub worker_id: String,
    /// CDI device names.
    pub devices: Vec<String>,
    /// Set when the function asked for a GPU and runs without.
    pub without_gpu: Option<GpuDemand>,
}

/// Something to do outside the scheduler.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Start a container.
    Launch(Launch),
    /// Signal a container.
    Signal {
        /// Where it runs.
        worker_id: String,
        /// The task.
        task_id: String,
        /// How.
        signal: StopSignal,
    },
    /// Say something in the log of an app.
    Notice {
        /// The app.
        app_id: String,
        /// The sentence, without a line end.
        text: String,
    },
    /// The scheduler itself gave an input of a durable call its output.
    SaveOutput {
        /// The call.
        call_id: String,
        /// The output.
        item: Box<homeport_proto::client::FunctionGetOutputsItem>,
    },
    /// An input of a durable call failed and is tried again.
    SaveFailures {
        /// The input.
        input_id: String,
        /// How often it has failed.
        failures: u32,
    },
    /// A durable call is over, and nobody asked for it for a while: its results are read from disk
    /// from here on.
    ParkCall {
        /// The call.
        call_id: String,
        /// When it was over, in seconds since the epoch.
        finished_at: crate::clock::Seconds,
    },
    /// A durable call is over and its caller has the results.
    ForgetCall {
        /// The call.
        call_id: String,
    },
    /// Nobody uses the pool of a bound function: it was forgotten, and whatever else was kept in
    /// memory for it can go as well.
    Retired {
        /// The bound function.
        function_id: String,
    },
    /// The last container of a stopping app has gone.
    AppQuiet {
        /// The app.
        app_id: String,
    },
}
