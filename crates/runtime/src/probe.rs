//! What the runtime finds on this machine, for a report.

use crate::runtime::RuntimeOptions;

/// Which cgroup hierarchies are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupVersion {
    /// None.
    Missing,
    /// Version 1, alone.
    V1,
    /// Version 2, alone.
    V2,
    /// Version 1 with version 2 beside it.
    Hybrid,
}

/// Whether containers get ids of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserNamespaceSupport {
    /// They do.
    Works,
    /// They don't; why.
    Refused(String),
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Version of the OCI runtime; `None` when it isn't there.
    pub runc: Option<String>,
}

/// Looks at this machine; changes nothing.
pub fn probe(options: &RuntimeOptions) -> Capabilities {
    Capabilities { runc: crate::runc::version(&options.runc) }
}
