//! A real worker with real containers, over a root of busybox, and a control that speaks the protocol to it.

// The exemption for tests covers functions marked as such, not those that they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "orders/control.rs"]
mod control;
#[path = "orders/machine.rs"]
mod machine;
#[path = "orders/steps.rs"]
mod steps;
#[path = "orders/tasks.rs"]
mod tasks;
#[path = "orders/volumes.rs"]
mod volumes;
