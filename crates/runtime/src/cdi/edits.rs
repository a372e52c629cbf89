//! What a device adds to a container's specification.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Hook, HookBuilder, Hooks, LinuxDeviceBuilder, LinuxDeviceCgroupBuilder, LinuxDeviceType, Mount, Spec,
};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde::Deserialize;

use super::{CdiError, NodeDirectory};
use crate::namespaces::IDS;
use crate::spec::{SpecError, bind};

/// Edits as a specification has them; parts that have no meaning here are passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Edits {
    pub(super) env: Vec<String>,
    device_nodes: Vec<DeviceNode>,
    mounts: Vec<CdiMount>,
    hooks: Vec<CdiHook>,
    additional_gids: Vec<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeviceNode {
    path: PathBuf,
    host_path: Option<PathBuf>,
    permissions: Option<String>,
    file_mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CdiMount {
    host_path: PathBuf,
    container_path: PathBuf,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    options: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CdiHook {
    hook_name: String,
    path: PathBuf,
    args: Option<Vec<String>>,
    env: Option<Vec<String>>,
    timeout: Option<i64>,
}

pub(super) fn apply(
    device: &str,
    edits: &Edits,
    spec: &mut Spec,
    nodes: Option<NodeDirectory<'_>>,
) -> Result<(), CdiError> {
    add_variables(edits, spec);
    for node in &edits.device_nodes {
        add_node(device, node, spec, nodes)?;
    }
    for mount in &edits.mounts {
        let mount = bound(device, mount)?;
        add_mount(spec, mount);
    }
    let mut hooks = spec.hooks().clone().unwrap_or_default();
    for hook in &edits.hooks {
        add_hook(device, hook, &mut hooks)?;
    }
    if !edits.hooks.is_empty() {
        spec.set_hooks(Some(hooks));
    }
    if let Some(process) = spec.process_mut() {
        let mut groups = process.user().additional_gids().clone().unwrap_or_default();
        groups.extend(&edits.additional_gids);
        process.user_mut().set_additional_gids(Some(groups));
    }
    Ok(())
}

/// A device's variable replaces one of the same name.
fn add_variables(edits: &Edits, spec: &mut Spec) {
    let Some(process) = spec.process_mut() else {
        return;
    };
    let mut env = process.env().clone().unwrap_or_default();
    for variable in &edits.env {
        let name = variable.split('=').next().unwrap_or_default();
        env.retain(|other| other.split('=').next() != Some(name));
        env.push(variable.clone());
    }
    process.set_env(Some(env));
}

fn add_node(
    device: &str,
    node: &DeviceNode,
    spec: &mut Spec,
    nodes: Option<NodeDirectory<'_>>,
) -> Result<(), CdiError> {
    let host_path = node.host_path.as_ref().unwrap_or(&node.path);
    let failed = |source| CdiError::Node { device: device.to_owned(), path: host_path.clone(), source };
    // The numbers in a specification are those of when it was written; the host's node has today's.
    let metadata = host_path.metadata().map_err(failed)?;
    let kind = if metadata.file_type().is_block_device() {
        LinuxDeviceType::B
    } else if metadata.file_type().is_char_device() {
        LinuxDeviceType::C
    } else {
        return Err(failed(io::Error::other("it is no device node")));
    };
    let malformed = malformed(device);
    let number = metadata.rdev();
    let (major, minor) = (i64::from(rustix::fs::major(number)), i64::from(rustix::fs::minor(number)));
    let rule = LinuxDeviceCgroupBuilder::default()
        .allow(true)
        .typ(kind)
        .major(major)
        .minor(minor)
        .access(node.permissions.clone().unwrap_or_else(|| "rwm".to_owned()))
        .build()
        .map_err(&malformed)?;
    let mode = node.file_mode.unwrap_or(metadata.mode() & 0o777);
    if let Some(nodes) = nodes {
        let count = spec.mounts().as_ref().map_or(0, Vec::len);
        let made = nodes.path.join(count.to_string());
        make_node(nodes, &made, node, kind, mode, number).map_err(failed)?;
        let mount = bind(&made, &node.path, false).map_err(|error| wrong(device, error))?;
        add_mount(spec, mount);
    }
    let Some(linux) = spec.linux_mut() else {
        return Ok(());
    };
    if let Some(resources) = linux.resources_mut() {
        let mut rules = resources.devices().clone().unwrap_or_default();
        rules.push(rule);
        resources.set_devices(Some(rules));
    }
    if nodes.is_none() {
        let made = LinuxDeviceBuilder::default()
            .path(&node.path)
            .typ(kind)
            .major(major)
            .minor(minor)
            .file_mode(mode)
            .uid(node.uid.unwrap_or(metadata.uid()))
            .gid(node.gid.unwrap_or(metadata.gid()))
            .build()
            .map_err(&malformed)?;
        let mut devices = linux.devices().clone().unwrap_or_default();
        devices.retain(|other| other.path() != &node.path);
        devices.push(made);
        linux.set_devices(Some(devices));
    }
    Ok(())
}

/// Makes a node at `made` that belongs to the container's root, or whom the specification names.
fn make_node(
    nodes: NodeDirectory<'_>,
    made: &Path,
    node: &DeviceNode,
    kind: LinuxDeviceType,
    mode: u32,
    number: u64,
) -> io::Result<()> {
    let file_type = match kind {
        LinuxDeviceType::B => FileType::BlockDevice,
        _ => FileType::CharacterDevice,
    };
    mknodat(CWD, made, file_type, Mode::from_raw_mode(mode), number)?;
    // Not subject to the umask.
    fs::set_permissions(made, Permissions::from_mode(mode))?;
    let id = |id: Option<u32>| Some(nodes.root_id + id.unwrap_or(0).min(IDS - 1));
    chown(made, id(node.uid), id(node.gid))
}

fn bound(device: &str, mount: &CdiMount) -> Result<Mount, CdiError> {
    if mount.kind.as_deref().is_some_and(|kind| kind != "bind") {
        let mut other = Mount::default();
        other
            .set_destination(mount.container_path.clone())
            .set_typ(mount.kind.clone())
            .set_source(Some(mount.host_path.clone()))
            .set_options(Some(mount.options.clone()));
        return Ok(other);
    }
    let read_only = mount.options.iter().any(|option| option == "ro");
    let mut made =
        bind(&mount.host_path, &mount.container_path, read_only).map_err(|error| wrong(device, error))?;
    let mut options = made.options().clone().unwrap_or_default();
    for option in &mount.options {
        // These are decided already, by what the source is and what its own mount allows.
        if !["bind", "rbind", "ro", "rw"].contains(&option.as_str()) && !options.contains(option) {
            options.push(option.clone());
        }
    }
    made.set_options(Some(options));
    Ok(made)
}

/// Several devices may bring the same mount.
fn add_mount(spec: &mut Spec, mount: Mount) {
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.retain(|other| other.destination() != mount.destination());
    mounts.push(mount);
    spec.set_mounts(Some(mounts));
}

fn add_hook(device: &str, hook: &CdiHook, hooks: &mut Hooks) -> Result<(), CdiError> {
    let mut made = HookBuilder::default().path(&hook.path);
    if let Some(args) = &hook.args {
        made = made.args(args.clone());
    }
    if let Some(env) = &hook.env {
        made = made.env(env.clone());
    }
    if let Some(timeout) = hook.timeout {
        made = made.timeout(timeout);
    }
    let made = made.build().map_err(malformed(device))?;
    let list = match hook.hook_name.as_str() {
        "prestart" => hooks.prestart_mut(),
        "createRuntime" => hooks.create_runtime_mut(),
        "createContainer" => hooks.create_container_mut(),
        "startContainer" => hooks.start_container_mut(),
        "poststart" => hooks.poststart_mut(),
        "poststop" => hooks.poststop_mut(),
        other => return Err(wrong(device, format!("there is no kind of hook `{other}`"))),
    };
    let list: &mut Option<Vec<Hook>> = list;
    let hooks = list.get_or_insert_default();
    if !hooks.contains(&made) {
        hooks.push(made);
    }
    Ok(())
}

fn malformed(device: &str) -> impl Fn(OciSpecError) -> CdiError {
    move |error| wrong(device, SpecError::from(error))
}

fn wrong(device: &str, message: impl ToString) -> CdiError {
    CdiError::Malformed { device: device.to_owned(), message: message.to_string() }
}
