//! The control plane: apps, functions, calls, builds, and who serves them where.
//!
//! [`Control`] owns all decisions. [`scheduler`] is their core, a state machine without I/O; the
//! `registry` holds what exists; `builds` turn image requests into steps; `wire` speaks the
//! client's API; `link` speaks to workers; `page` shows an app to a person. No container is touched here: workers do that.

mod admin;
mod apps;
mod auth;
mod builds;
mod clock;
mod control;
mod deployments;
mod dialect;
mod durable;
mod environments;
mod functions;
mod ids;
mod launch;
mod layers;
mod link;
mod links;
mod logs;
mod network_files;
mod page;
mod registry;
mod roots;
pub mod scheduler;
mod secrets;
mod service;
mod storage;
mod validation;
pub mod volumes;
mod wire;

pub use clock::{Clock, Seconds, SystemClock};
pub use control::{Control, ControlOptions};
pub use registry::RegistryError;
pub use scheduler::Policy;
pub use storage::{
    BoxedError, CheckEvent, CheckOptions, Checked, CollectOptions, CollectProgress, Collected, DiskUsage,
    ForgottenLayers, LayerCache, StorageError, Upkeep, UsageRow,
};
pub use volumes::Retention;
