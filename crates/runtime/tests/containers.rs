//! Real containers, made as root over a root of busybox.

// The exemption for tests covers functions marked as such, not those that they share.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "containers/devices.rs"]
mod devices;
#[path = "containers/exit.rs"]
mod exit;
#[path = "containers/instance.rs"]
mod instance;
#[path = "containers/isolation.rs"]
mod isolation;
#[path = "containers/network.rs"]
mod network;
#[path = "containers/pause.rs"]
mod pause;
#[path = "containers/refusal.rs"]
mod refusal;
