//! The filter on system calls: a list of those that are allowed, in `seccomp.json`; everything else is refused.
//!
//! The list is that of the common container runtimes for a process with the capabilities that containers have here: no
//! mounts, no new namespaces, no kernel modules, no BPF, no performance counters, no key rings, no io_uring, no way to set the clock.

use std::sync::LazyLock;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompBuilder, LinuxSyscall,
    LinuxSyscallBuilder,
};
use serde::Deserialize;

use crate::spec::SpecError;

const LIST: &str = include_str!("seccomp.json");

static PROFILE: LazyLock<Result<LinuxSeccomp, String>> =
    LazyLock::new(|| load(LIST).map_err(|error| error.to_string()));

/// The filter for every container.
pub(crate) fn profile() -> Result<LinuxSeccomp, SpecError> {
    PROFILE.clone().map_err(SpecError::Malformed)
}

#[derive(Deserialize)]
struct List {
    allowed: Vec<Calls>,
    by_argument: Vec<Calls>,
    unknown: Calls,
}

#[derive(Deserialize)]
struct Calls {
    names: Vec<String>,
    #[serde(default)]
    args: Vec<LinuxSeccompArg>,
}

fn load(list: &str) -> Result<LinuxSeccomp, SpecError> {
    let list: List = serde_json::from_str(list).map_err(|error| SpecError::Malformed(error.to_string()))?;
    let mut syscalls = vec![syscall(
        list.allowed.into_iter().flat_map(|calls| calls.names).collect(),
        Vec::new(),
        LinuxSeccompAction::ScmpActAllow,
        None,
    )?];
    for calls in list.by_argument {
        syscalls.push(syscall(calls.names, calls.args, LinuxSeccompAction::ScmpActAllow, None)?);
    }
    syscalls.push(syscall(
        list.unknown.names,
        Vec::new(),
        LinuxSeccompAction::ScmpActErrno,
        Some(libc::ENOSYS.unsigned_abs()),
    )?);
    Ok(LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(libc::EPERM.unsigned_abs())
        .architectures(architectures())
        .syscalls(syscalls)
        .build()?)
}

fn syscall(
    names: Vec<String>,
    args: Vec<LinuxSeccompArg>,
    action: LinuxSeccompAction,
    errno: Option<u32>,
) -> Result<LinuxSyscall, SpecError> {
    let mut syscall = LinuxSyscallBuilder::default().names(names).action(action);
    if !args.is_empty() {
        syscall = syscall.args(args);
    }
    if let Some(errno) = errno {
        syscall = syscall.errno_ret(errno);
    }
    Ok(syscall.build()?)
}

/// The processor's own calls and those of older modes that it also runs: a filter that leaves one out kills its users.
fn architectures() -> Vec<Arch> {
    if cfg!(target_arch = "aarch64") {
        vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm]
    } else {
        vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_well_formed_and_refuses_what_leads_out() {
        let profile = load(LIST).unwrap();
        assert_eq!(profile.default_action(), LinuxSeccompAction::ScmpActErrno);
        let unconditional: Vec<_> = profile
            .syscalls()
            .iter()
            .flatten()
            .filter(|call| call.args().is_none() && call.action() == LinuxSeccompAction::ScmpActAllow)
            .flat_map(|call| call.names().clone())
            .collect();
        for refused in [
            "mount",
            "umount2",
            "pivot_root",
            "unshare",
            "setns",
            "clone",
            "clone3",
            "bpf",
            "keyctl",
            "add_key",
            "init_module",
            "kexec_load",
            "perf_event_open",
            "open_by_handle_at",
            "userfaultfd",
            "io_uring_setup",
            "move_mount",
            "settimeofday",
        ] {
            assert!(!unconditional.iter().any(|name| name == refused), "{refused}");
        }
        let mut sorted = unconditional.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), unconditional.len(), "a name is listed twice");
    }
}
