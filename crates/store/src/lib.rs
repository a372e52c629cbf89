//! Placeholder documentation, replaced as the crate is written.
