//! The wire: the subset of the client's API that Homeport serves, and the worker API.
//!
//! Messages only, no logic. The `.proto` files under `proto/` are the specification.

#![allow(missing_docs, unreachable_pub, clippy::all)]

mod hidden;

// The modules mirror the packages, because generated code refers to its neighbours by path.
mod package {
    pub mod modal {
        pub mod client {
            tonic::include_proto!("modal.client");
        }
    }
    pub mod homeport {
        pub mod worker {
            pub mod v1 {
                tonic::include_proto!("homeport.worker.v1");
            }
        }
        pub mod admin {
            pub mod v1 {
                tonic::include_proto!("homeport.admin.v1");
            }
        }
        pub mod record {
            pub mod v1 {
                tonic::include_proto!("homeport.record.v1");
            }
        }
    }
}

/// The client's API (package `modal.client`).
pub use package::modal::client;

/// The worker's API (package `homeport.worker.v1`).
pub use package::homeport::worker::v1 as worker;

/// What the control plane keeps (package `homeport.record.v1`).
pub use package::homeport::record::v1 as record;

/// The command line's API (package `homeport.admin.v1`).
pub use package::homeport::admin::v1 as admin;

/// The names of all methods of the client's service.
pub const CLIENT_METHODS: &[&str] = include!(concat!(env!("OUT_DIR"), "/methods.rs"));
