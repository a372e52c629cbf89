//! Benchmarks: what Homeport's own parts cost, beside the plain thing in the same run.
//!
//! Each benchmark is one function that takes options and gives a report, which can be shown as a
//! table or serialized. [`run_image`] measures mounted images beside plain files, in
//! turns, because both move together with whatever else the machine does. [`run_volume`] does the
//! same for Volumes, with commits and other versions, and [`run_commit`] does through the real client.
//! [`run_start`] measures
//! cold starts of containers through the real client, beside plain `runc`, [`run_calls`] what calls
//! of containers that are there cost, beside a server that only answers.
//!
//! Absent: microbenchmarks of functions, and a judgement: the reports carry the aims, people
//! decide.

mod calls;
mod client;
mod commit;
mod error;
mod image;
mod interruption;
mod machine;
mod mounts;
mod program;
mod scratch;
mod start;
mod statistics;
mod table;
mod volume;

pub use calls::report::{CallsReport, Latency, Payload, Queue, Rate};
pub use calls::{CallsOptions, run_calls};
pub use client::ClientOptions;
pub use commit::report::CommitReport;
pub use commit::{CommitOptions, run_commit};
pub use error::BenchError;
pub use image::report::{Aim, Comparison, ImageReport, MountReport, Warmth};
pub use image::{ImageOptions, run_image};
pub use machine::{ByteCount, Machine, ParseByteCountError};
pub use start::report::{Stage, StartReport};
pub use start::{StartOptions, run_start};
pub use statistics::Summary;
pub use volume::report::{Pair, Single, VolumeReport};
pub use volume::{VolumeOptions, run_volume};
