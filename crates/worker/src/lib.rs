//! The node agent: carries out control's orders on one machine.
//!
//! A [`Worker`] attaches to control, receives orders and reports what becomes of them. It decides nothing: which
//! container runs where, what is retried and what is kept is control's business.
//!
//! ```text
//! link      the stream to control, opened anew when it breaks
//! orders    what runs now, by id
//! task      a container with the client's entrypoint
//! step      a step of a build: pull a base, run a command, copy files
//! site      what one process runs in: sandbox, root, files, listener
//! process   that process: start, signals, end
//! volumes   Volumes in containers: taking what they change, showing other versions
//! output    what it writes, on its way to control
//! proxy     the listener inside the container
//! ```
//!
//! Invariants:
//! - An order ends with exactly one report, after all of its output.
//! - When that report is made, nothing of the order is left on the machine: no mount, cgroup, namespace or directory. What
//!   a container changed in a Volume stays on disk until control has it, whatever happens to the stream or this process.
//! - A container holds no credential. Who it is, is said by the listener that it speaks to.
//! - When the stream to control breaks, everything that runs is ended before the worker attaches again.
//!
//! Absent: scheduling, retries, limits on the number of tasks (control knows the machine from the hello), TLS.

mod environment;
mod error;
mod link;
mod node;
mod options;
mod orders;
mod output;
mod process;
mod proxy;
mod reports;
mod site;
mod step;
mod task;
mod volumes;
mod worker;

pub use environment::HostEnvironment;
pub use error::WorkerError;
pub use options::WorkerOptions;
pub use proxy::ControlService;
pub use worker::Worker;
