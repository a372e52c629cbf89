//! The process part of a specification: command, environment, user, limits.

use std::path::Path;

use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process};
use rustix::process::{Resource, getrlimit};

use super::{ContainerSpec, INIT_PATH, SpecError, user};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Open files that a program gets without asking, and how many it can ask for. Some programs walk over all numbers below
/// the first of these when they start a child, so it is not larger.
const OPEN_FILES: u64 = 65_536;
const MOST_OPEN_FILES: u64 = 1_048_576;

pub(super) fn build(container: &ContainerSpec, defaults: Process) -> Result<Process, SpecError> {
    let account = user::resolve(&container.rootfs, &container.user)?;
    let mut env = container.env.clone();
    env.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into());
    env.entry("HOME".into()).or_insert_with(|| account.home.clone());
    let mut args = vec![INIT_PATH.to_owned(), "--".to_owned()];
    args.extend(container.argv.iter().cloned());
    let mut process = defaults;
    process
        .set_args(Some(args))
        .set_env(Some(env.iter().map(|(name, value)| format!("{name}={value}")).collect()))
        .set_cwd(Path::new("/").join(&container.workdir))
        .set_user(account.to_oci()?)
        .set_rlimits(Some(rlimits()?));
    Ok(process)
}

/// A limit above this process's own can be set only with a privilege that it may lack.
fn rlimits() -> Result<Vec<PosixRlimit>, SpecError> {
    let own = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let hard = own.min(MOST_OPEN_FILES);
    let limit =
        |kind, soft: u64, hard: u64| PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard).build();
    Ok(vec![
        limit(PosixRlimitType::RlimitNofile, hard.min(OPEN_FILES), hard)?,
        // A core file would fill the writable layer.
        limit(PosixRlimitType::RlimitCore, 0, 0)?,
    ])
}
