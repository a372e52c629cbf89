//! The hub as its clients see it: imports into a real store, requests over loopback, and the
//! real client library in every version that is supported.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in what it calls too"
)]

mod clients;
mod fixture;
mod http;
mod imports;
