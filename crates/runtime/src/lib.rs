//! Containers on this machine: namespaces, network, OCI specification, `runc`, cgroups, exit reasons, devices.
//!
//! A [`Runtime`] belongs to one Homeport instance. It hands out a [`Sandbox`] for each container: a user namespace with
//! its own range of host ids and a network namespace with an address behind NAT. [`Runtime::start`] runs a process in
//! a sandbox over a root file system that the caller has mounted, and returns a [`Container`] to wait for.
//!
//! Everything that the runtime makes on the machine (links, cgroups, an nft table) carries a tag made from the
//! instance's name, so [`Runtime::recover`] finds what a crash left behind by name alone, without trusting records.
//!
//! All operations block for some milliseconds, up to a few hundred; call them from a thread that may block. Only
//! [`Container::wait`] is asynchronous, because it lasts as long as the container.
//!
//! Absent here: file systems (the caller mounts the root and decides what is kept), images, scheduling and output
//! handling (the caller gives pipes and reads them).

mod cdi;
mod cgroup;
mod container;
mod deadline;
mod freezer;
mod gpu;
mod names;
mod namespaces;
mod network;
mod probe;
mod recovery;
mod runc;
mod runtime;
mod sandbox;
mod seccomp;
mod slots;
mod spec;

pub use cdi::CdiError;
pub use cgroup::CgroupError;
pub use container::{Container, ContainerError, Exit, ExitStatus};
pub use freezer::{FreezeError, Freezer};
pub use gpu::{Gpu, gpus};
pub use namespaces::NamespaceError;
pub use network::{NetworkError, SubnetRange, host_resolv_conf};
pub use probe::{Capabilities, CgroupVersion, UserNamespaceSupport, probe};
pub use recovery::{RecoverError, Recovered};
pub use runc::RuncError;
pub use runtime::{OpenError, Runtime, RuntimeOptions, StartError, UserNamespaces};
pub use sandbox::{IdMap, Sandbox, SandboxError};
pub use spec::{Bind, ContainerSpec, Limits, MOUNT_POINTS, SpecError, Stdio, UserError};
