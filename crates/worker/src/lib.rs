//! The node agent: carries out control's orders on one machine.
#![allow(dead_code)]

mod environment;
mod link;
mod options;
mod output;
mod proxy;
mod reports;

pub use environment::HostEnvironment;
pub use options::WorkerOptions;
