//! From what the caller wants to an OCI runtime specification.
//!
//! The fixed policy (mounts, masked paths, capabilities) is data in `spec/defaults.json`; this module fills in what
//! differs from container to container.

mod process;
mod user;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxCpuBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxIdMapping, LinuxIdMappingBuilder,
    LinuxMemoryBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder,
    LinuxResources, LinuxResourcesBuilder, Mount, MountBuilder, RootBuilder, Spec,
};
use rustix::fs::{StatVfsMountFlags, statvfs};

use crate::namespaces::IDS;
use crate::seccomp;

pub use user::UserError;

const DEFAULTS: &str = include_str!("spec/defaults.json");

/// Where the init program is bound in every container.
pub(crate) const INIT_PATH: &str = "/__modal/init";

/// Paths at which the runtime mounts something in every container. Where the root lacks one, an empty file or directory
/// is made in the writable layer: leave these out of what is kept, unless the image had them.
pub const MOUNT_POINTS: &[&str] =
    &[INIT_PATH, "/proc", "/sys", "/dev", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname"];

/// Most processes and threads of a container that asked for no limit: enough for any thread pool, too few for a fork bomb
/// to starve the machine of process ids.
const DEFAULT_PIDS: u32 = 8192;

/// Period of the cpu quota, in microseconds.
const CPU_PERIOD: u64 = 100_000;

/// A container to start.
#[derive(Debug, Clone, Default)]
pub struct ContainerSpec {
    /// Distinct among the instance's containers: letters, digits, `_`, `-`, `.`; at most 128.
    pub id: String,
    /// The mounted root. With a user namespace, every directory above it must be searchable by everybody.
    pub rootfs: PathBuf,
    /// The command; looked up in `PATH` of `env` when it has no slash.
    pub argv: Vec<String>,
    /// The environment. `PATH` and `HOME` are added when missing.
    pub env: BTreeMap<String, String>,
    /// Working directory, made when missing; empty means `/`.
    pub workdir: String,
    /// Host name; empty means the id.
    pub hostname: String,
    /// As in a Dockerfile's USER: a name or number, optionally with `:` and a group; empty means root.
    pub user: String,
    /// Files and directories of the host to show in the container.
    pub binds: Vec<Bind>,
    /// Limits on resources.
    pub limits: Limits,
    /// Fully qualified CDI device names, for example `nvidia.com/gpu=0`.
    pub devices: Vec<String>,
}

/// A file or directory of the host, shown in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Path on the host.
    pub source: PathBuf,
    /// Absolute path in the container; made when missing.
    pub target: PathBuf,
    /// Whether the container can only read it.
    pub read_only: bool,
}

/// Limits on a container's resources; 0 means none, for `pids` the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Thousandths of a core.
    pub milli_cpu: u32,
    /// Memory without swap, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
}

/// The standard streams of a container. Pass ends of pipes and close the own copies: readers see the end only then.
#[derive(Debug)]
pub struct Stdio {
    /// Standard input; `None` means `/dev/null`.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

/// What the caller wants can't be put into a specification.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// The id has other characters or another length than allowed.
    #[error("its id may have 1 to 128 letters, digits, `_`, `-` and `.`, and must not begin with `.`")]
    Id,
    /// There is no command.
    #[error("it has no command")]
    NoCommand,
    /// A text has a zero byte.
    #[error("{what} contains a zero byte")]
    ZeroByte {
        /// Which text.
        what: String,
    },
    /// The name of a variable is empty or has `=`.
    #[error("`{0}` is no name for an environment variable")]
    Variable(String),
    /// A path must be absolute.
    #[error("{what} `{path}` is not an absolute path")]
    NotAbsolute {
        /// Which path.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// The root can't be reached by the container's ids.
    #[error(
        "the directory `{0}` above its root is not searchable by the container's user ids; run `chmod o+x` on it"
    )]
    Unreachable(PathBuf),
    /// A path on the host can't be used.
    #[error("`{path}`: {source}")]
    Path {
        /// The path.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// The user doesn't exist in the image.
    #[error(transparent)]
    User(#[from] UserError),
    /// The policy that is part of this program, or a value put into it, is malformed.
    #[error("making its OCI specification: {0}")]
    Malformed(String),
}

impl From<OciSpecError> for SpecError {
    fn from(error: OciSpecError) -> SpecError {
        SpecError::Malformed(error.to_string())
    }
}

/// What of the sandbox and the machine a specification names.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) user_namespace: Option<String>,
    /// First host id of the user namespace, when the mappings must be told beside it.
    pub(crate) host_base: Option<u32>,
    pub(crate) network_namespace: String,
    /// Relative to the hierarchies' mounts.
    pub(crate) cgroup: String,
    pub(crate) cgroup_namespace: bool,
    pub(crate) limit_swap: bool,
    pub(crate) init: &'a Path,
    /// The container's `resolv.conf`, `hosts` and `hostname`.
    pub(crate) etc: &'a Path,
}

/// Refuses what can't be started, before anything is made for it.
pub(crate) fn check(container: &ContainerSpec, user_namespace: bool) -> Result<(), SpecError> {
    let id = container.id.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
    if id.is_empty() || id.len() > 128 || id[0] == b'.' || !id.iter().all(plain) {
        return Err(SpecError::Id);
    }
    if container.argv.first().is_none_or(String::is_empty) {
        return Err(SpecError::NoCommand);
    }
    for name in container.env.keys() {
        if name.is_empty() || name.contains('=') {
            return Err(SpecError::Variable(name.clone()));
        }
    }
    let texts = container.argv.iter().map(|text| ("its command", text));
    let variables = container
        .env
        .iter()
        .flat_map(|(name, value)| [("its environment", name), ("its environment", value)]);
    let others = [("its working directory", &container.workdir), ("its host name", &container.hostname)];
    for (what, text) in texts.chain(variables).chain(others) {
        if text.contains('\0') {
            return Err(SpecError::ZeroByte { what: what.to_owned() });
        }
    }
    let paths = container
        .binds
        .iter()
        .flat_map(|bind| [("the bind's source", &bind.source), ("the bind's target", &bind.target)]);
    for (what, path) in paths.chain([("its root", &container.rootfs)]) {
        if !path.is_absolute() {
            return Err(SpecError::NotAbsolute { what, path: path.clone() });
        }
    }
    if user_namespace {
        reachable(&container.rootfs)?;
    }
    Ok(())
}

/// The kernel looks the root up with the container's ids, which own nothing above it.
fn reachable(rootfs: &Path) -> Result<(), SpecError> {
    use std::os::unix::fs::PermissionsExt;
    for directory in rootfs.ancestors().skip(1) {
        let metadata =
            directory.metadata().map_err(|source| SpecError::Path { path: directory.to_owned(), source })?;
        if metadata.permissions().mode() & 0o001 == 0 {
            return Err(SpecError::Unreachable(directory.to_owned()));
        }
    }
    Ok(())
}

/// The specification, without devices.
pub(crate) fn build(container: &ContainerSpec, surroundings: &Surroundings<'_>) -> Result<Spec, SpecError> {
    let mut spec: Spec =
        serde_json::from_str(DEFAULTS).map_err(|error| SpecError::Malformed(error.to_string()))?;
    spec.set_root(Some(RootBuilder::default().path(&container.rootfs).readonly(false).build()?));
    spec.set_hostname(Some(hostname(container).to_owned()));
    let process = process::build(container, spec.process().clone().unwrap_or_default())?;
    spec.set_process(Some(process));
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for name in ["resolv.conf", "hosts", "hostname"] {
        mounts.push(bind(&surroundings.etc.join(name), &Path::new("/etc").join(name), false)?);
    }
    mounts.push(bind(surroundings.init, Path::new(INIT_PATH), true)?);
    for wanted in &container.binds {
        mounts.push(bind(&wanted.source, &wanted.target, wanted.read_only)?);
    }
    spec.set_mounts(Some(mounts));
    let mut linux = spec.linux().clone().unwrap_or_default();
    let ids = id_mappings(surroundings)?;
    linux
        .set_namespaces(Some(namespaces(surroundings)?))
        .set_uid_mappings(ids.clone())
        .set_gid_mappings(ids)
        .set_cgroups_path(Some(format!("/{}", surroundings.cgroup).into()))
        .set_resources(Some(resources(&container.limits, surroundings.limit_swap)?))
        .set_seccomp(Some(seccomp::profile()?));
    spec.set_linux(Some(linux));
    Ok(spec)
}

pub(crate) fn hostname(container: &ContainerSpec) -> &str {
    // The kernel takes 64 bytes.
    let name = if container.hostname.is_empty() { &container.id } else { &container.hostname };
    name.char_indices().nth(64).map_or(name.as_str(), |(end, _)| &name[..end])
}

/// A bind mount with the restrictions of the mount that its source is on: from inside a user namespace the kernel refuses
/// to change a bind to read-only and drop one of them in passing.
pub(crate) fn bind(source: &Path, target: &Path, read_only: bool) -> Result<Mount, SpecError> {
    let failed = |error: std::io::Error| SpecError::Path { path: source.to_owned(), source: error };
    let flags = statvfs(source).map_err(|errno| failed(errno.into()))?.f_flag;
    let directory = source.metadata().map_err(failed)?.is_dir();
    let read_only = read_only || flags.contains(StatVfsMountFlags::RDONLY);
    let mut options = vec![if directory { "rbind" } else { "bind" }, "rprivate"];
    options.push(if read_only { "ro" } else { "rw" });
    for (flag, name) in [
        (StatVfsMountFlags::NOSUID, "nosuid"),
        (StatVfsMountFlags::NODEV, "nodev"),
        (StatVfsMountFlags::NOEXEC, "noexec"),
    ] {
        if flags.contains(flag) {
            options.push(name);
        }
    }
    Ok(MountBuilder::default()
        .destination(target)
        .typ("bind")
        .source(source)
        .options(options.into_iter().map(str::to_owned).collect::<Vec<_>>())
        .build()?)
}

fn namespaces(surroundings: &Surroundings<'_>) -> Result<Vec<LinuxNamespace>, SpecError> {
    let new = |kind| LinuxNamespaceBuilder::default().typ(kind).build();
    let joined = |kind, path: &str| LinuxNamespaceBuilder::default().typ(kind).path(path).build();
    let mut namespaces = vec![
        new(LinuxNamespaceType::Mount)?,
        new(LinuxNamespaceType::Pid)?,
        new(LinuxNamespaceType::Ipc)?,
        new(LinuxNamespaceType::Uts)?,
        joined(LinuxNamespaceType::Network, &surroundings.network_namespace)?,
    ];
    if let Some(path) = &surroundings.user_namespace {
        namespaces.push(joined(LinuxNamespaceType::User, path)?);
    }
    if surroundings.cgroup_namespace {
        namespaces.push(new(LinuxNamespaceType::Cgroup)?);
    }
    Ok(namespaces)
}

fn id_mappings(surroundings: &Surroundings<'_>) -> Result<Option<Vec<LinuxIdMapping>>, SpecError> {
    let Some(host_base) = surroundings.host_base else {
        return Ok(None);
    };
    let mapping =
        LinuxIdMappingBuilder::default().container_id(0_u32).host_id(host_base).size(IDS).build()?;
    Ok(Some(vec![mapping]))
}

fn resources(limits: &Limits, limit_swap: bool) -> Result<LinuxResources, SpecError> {
    let pids = if limits.pids == 0 { DEFAULT_PIDS } else { limits.pids };
    let mut resources = LinuxResourcesBuilder::default()
        .devices(vec![deny_all_devices()?])
        .pids(LinuxPidsBuilder::default().limit(i64::from(pids)).build()?);
    if limits.milli_cpu > 0 {
        let quota = i64::from(limits.milli_cpu) * i64::try_from(CPU_PERIOD / 1000).unwrap_or(100);
        resources = resources.cpu(
            LinuxCpuBuilder::default()
                // The kernel takes no less than one millisecond.
                .quota(quota.max(1000))
                .period(CPU_PERIOD)
                .build()?,
        );
    }
    if limits.memory_bytes > 0 {
        let bytes = i64::try_from(limits.memory_bytes).unwrap_or(i64::MAX);
        let mut memory = LinuxMemoryBuilder::default().limit(bytes);
        if limit_swap {
            // The limit is on memory and swap together, so this leaves nothing for swap.
            memory = memory.swap(bytes);
        }
        resources = resources.memory(memory.build()?);
    }
    Ok(resources.build()?)
}

/// The OCI runtime itself lets the usual devices through after this.
fn deny_all_devices() -> Result<LinuxDeviceCgroup, SpecError> {
    Ok(LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build()?)
}
