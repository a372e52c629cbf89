//! What the runtime finds on this machine, for a report.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cgroup::Hierarchies;
use crate::network::has_name_servers;
use crate::runtime::{RuntimeOptions, UserNamespaces};
use crate::{gpu, namespaces, runc};

/// Controllers that limits of containers need.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

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
    /// The configuration says no.
    TurnedOff,
    /// They don't; why.
    Refused(String),
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Version of the OCI runtime; `None` when it isn't there. Needed.
    pub runc: Option<String>,
    /// Whether the init program for containers is there. Needed.
    pub init: bool,
    /// Version of nftables; `None` when it isn't there. Needed.
    pub nft: Option<String>,
    /// Mounted cgroup hierarchies. Needed.
    pub cgroups: CgroupVersion,
    /// Controllers that are needed for limits and not there. Starts with the limit that needs them fail.
    pub missing_controllers: Vec<&'static str>,
    /// Whether a container can be stopped for a moment, which taking the changes of a Volume needs.
    pub freezer: bool,
    /// Whether swap is limited with memory. Without, a container may use swap beyond its memory.
    pub swap_limits: bool,
    /// Whether containers get user namespaces. Without, root in a container has the host's id 0.
    pub user_namespaces: UserNamespaceSupport,
    /// Whether kernel and OCI runtime filter system calls. Needed.
    pub seccomp: bool,
    /// Whether the machine's `resolv.conf` names a server that containers reach. Without, they resolve no names.
    pub name_servers: bool,
    /// GPUs that the driver lists.
    pub gpus_installed: usize,
    /// GPUs that containers can be given.
    pub gpus_usable: usize,
}

/// Looks at this machine; changes nothing.
pub fn probe(options: &RuntimeOptions) -> Capabilities {
    let hierarchies = Hierarchies::discover().ok();
    Capabilities {
        runc: runc::version(&options.runc),
        init: options.init.exists(),
        nft: version_of_nft(&options.nft),
        cgroups: hierarchies.as_ref().map_or(CgroupVersion::Missing, Hierarchies::version),
        missing_controllers: CONTROLLERS
            .into_iter()
            .filter(|controller| {
                !hierarchies.as_ref().is_some_and(|mounted| mounted.has_controller(controller))
            })
            .collect(),
        freezer: hierarchies.as_ref().is_some_and(Hierarchies::can_freeze),
        swap_limits: hierarchies.as_ref().is_some_and(Hierarchies::limits_swap),
        user_namespaces: user_namespaces(options.user_namespaces),
        seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists()
            && runc::filters_calls(&options.runc),
        name_servers: has_name_servers(),
        gpus_installed: gpu::driver_count(),
        gpus_usable: gpu::gpus(&options.cdi_dirs).len(),
    }
}

fn user_namespaces(wanted: UserNamespaces) -> UserNamespaceSupport {
    if wanted == UserNamespaces::Never {
        return UserNamespaceSupport::TurnedOff;
    }
    match namespaces::probe_user_namespaces() {
        Ok(()) => UserNamespaceSupport::Works,
        Err(error) => {
            let most = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
            UserNamespaceSupport::Refused(if most.trim() == "0" {
                format!("{error}; run `sysctl user.max_user_namespaces=65536`")
            } else {
                error.to_string()
            })
        }
    }
}

fn version_of_nft(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.split_whitespace().nth(1)?.to_owned())
}
