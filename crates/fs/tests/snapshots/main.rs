//! Real mounts on the running kernel. Every test has a mount namespace of its own, so nothing of
//! it outlives it. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod collect;
mod layers;
mod mounts;
mod observe;
mod place;
mod round_trip;
