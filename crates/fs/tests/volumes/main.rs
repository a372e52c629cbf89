//! Volumes in processes with mount namespaces of their own, on the running kernel. Every test has a namespace itself, so
//! nothing of it outlives it. Needs root and `python3`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod container;
mod cycles;
mod differences;
mod limits;
mod pace;
mod place;
mod places;
mod recovery;
#[path = "../snapshots/place.rs"]
#[allow(dead_code, unused_imports)]
mod snapshots;
mod stacks;
mod swaps;
