//! The wire: the subset of the client's API that Homeport serves, and the worker API.
//!
//! Messages only, no logic. The `.proto` files under `proto/` are the specification.

#![allow(missing_docs, unreachable_pub, clippy::all)]

/// The client's API (package `modal.client`).
pub mod client {
    tonic::include_proto!("modal.client");
}

/// The worker's API (package `homeport.worker.v1`).
pub mod worker {
    tonic::include_proto!("homeport.worker.v1");
}
