//! The requirements, one after the other. The mounts and containers are tried by the crates that use them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use homeport_fs::{Backend, Capability};
use homeport_runtime::{CgroupVersion, RuntimeOptions, UserNamespaceSupport};

use super::network::base_images;
use super::report::Check;
use crate::models::size;
use crate::storage;

const GIB: u64 = 1 << 30;
/// Below this not even a base image fits.
const LEAST_DISK: u64 = 2 * GIB;
const COMFORTABLE_DISK: u64 = 10 * GIB;

const CA_BUNDLES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// Checks everything, for a server whose data is or will be in `data_dir`.
pub(super) fn all(data_dir: &Path) -> Vec<Check> {
    let nearest = nearest_existing(data_dir);
    let mut checks = vec![root(), kernel()];
    checks.push(storage(data_dir));
    checks.extend(mounts(&nearest));
    checks.push(long_paths());
    checks.push(fuse());
    checks.extend(containers());
    let bootstrap = program_version("mmdebstrap");
    checks.push(mmdebstrap(bootstrap.as_deref()));
    checks.push(base_images(bootstrap.is_some()));
    checks.push(ca_bundle());
    checks.push(disk(&nearest));
    checks
}

fn root() -> Check {
    if rustix::process::geteuid().is_root() {
        return Check::ok("root", "runs as root");
    }
    Check::missing(
        "root",
        "not root; what needs it can't be checked either",
        "mounting images, starting containers",
        "run homeport with sudo",
    )
}

fn kernel() -> Check {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    match version(&release) {
        Some(version) if version >= (6, 12) => Check::ok("kernel", format!("Linux {release}")),
        Some(version) if version >= (5, 12) => Check::warn(
            "kernel",
            format!("Linux {release}"),
            "the fast way to mount images, which needs 6.12",
            "install a newer kernel, for example from backports",
        ),
        _ => Check::missing(
            "kernel",
            format!("Linux {release}"),
            "id-mapped mounts and the mount interface that is used, which need 5.12",
            "install a newer kernel",
        ),
    }
}

/// Major and minor number of a kernel release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn mounts(directory: &Path) -> Vec<Check> {
    let found = match homeport_fs::probe(directory) {
        Ok(found) => found,
        Err(error) => {
            return vec![Check::missing(
                "mounts",
                crate::failure::chain(&error),
                "mounting images",
                "run homeport as root, on a file system that it may write to",
            )];
        }
    };
    let optional = |name, capability: &Capability, lost: &str, mend: &str| {
        if capability.available {
            Check::ok(name, capability.detail.clone())
        } else {
            Check::warn(name, capability.detail.clone(), lost, mend)
        }
    };
    let slower = "images are mounted from trees of hard links, which are slower to prepare";
    let backend = match found.backend {
        Some(Backend::Erofs) => Check::ok("mounts", "EROFS over the object store"),
        Some(Backend::Linked) => Check::ok("mounts", "trees of hard links"),
        None => Check::missing(
            "mounts",
            "neither way to mount images works",
            "any image",
            "load the kernel module: modprobe overlay",
        ),
    };
    vec![
        backend,
        optional(
            "EROFS from files",
            &found.file_backed_erofs,
            slower,
            "use Linux 6.12 or newer, with the module: modprobe erofs",
        ),
        optional(
            "data-only overlays",
            &found.data_only_layers,
            slower,
            "use Linux 6.5 or newer, with the module: modprobe overlay",
        ),
        optional(
            "id-mapped mounts",
            &found.id_mapped_layers,
            "containers without user ids of their own: root in one has the host's id 0",
            "use Linux 5.19 or newer, and a file system with id-mapped mounts for the data directory",
        ),
        optional(
            "reflinks",
            &found.reflink,
            "opening a large committed file for writing copies it whole, and each commit reads it whole",
            "homeport storage init --size 200GB, with --move where there is data already",
        ),
        optional(
            "reloads in place",
            &found.mounts_beneath,
            "reloading Volumes in running containers",
            "use Linux 6.5 or newer",
        ),
    ]
}

/// The file system that the data directory has for itself, if any.
fn storage(data_dir: &Path) -> Check {
    if let Some(file) = storage::out_of_sight(data_dir) {
        return Check::warn(
            "storage",
            format!("the file system in {} is not mounted", file.display()),
            "the data, until homeport up mounts it",
            "homeport storage attach",
        );
    }
    let kind =
        if storage::is_attached(data_dir) { "a file system of its own" } else { "the directory as it is" };
    Check::ok("storage", kind)
}

fn long_paths() -> Check {
    const NAME: &str = "long paths";
    let lost = "renaming committed files with long paths into other directories of a Volume";
    match homeport_fs::redirect_limit() {
        Some(limit) if limit >= 4096 => Check::ok(NAME, format!("redirect_max is {limit}")),
        Some(limit) if rustix::process::geteuid().is_root() => {
            Check::ok(NAME, format!("redirect_max is {limit}; homeport up raises it"))
        }
        Some(limit) => Check::warn(
            NAME,
            format!("redirect_max is {limit}"),
            lost,
            "run homeport as root, which raises it",
        ),
        None => Check::warn(NAME, "no parameter redirect_max", lost, "modprobe overlay"),
    }
}

fn fuse() -> Check {
    if Path::new("/dev/fuse").exists() {
        return Check::ok("FUSE device", "/dev/fuse");
    }
    Check::warn("FUSE device", "no /dev/fuse", "reading contents that aren't here yet", "modprobe fuse")
}

fn containers() -> Vec<Check> {
    // The directory is for a runtime that is opened; looking needs none.
    let found = homeport_runtime::probe(&RuntimeOptions::new("/nonexistent", "doctor"));
    let no_container = "any container";
    let program = |name, version: Option<String>, mend: &str| match version {
        Some(version) => Check::ok(name, version),
        None => Check::missing(name, "not found", no_container, mend),
    };
    let cgroups = match (found.cgroups, found.missing_controllers.as_slice()) {
        (CgroupVersion::Missing, _) => {
            Check::missing("cgroups", "not mounted", no_container, "mount -t cgroup2 none /sys/fs/cgroup")
        }
        (version, []) => {
            let name = match version {
                CgroupVersion::V1 => "version 1",
                CgroupVersion::V2 => "version 2",
                CgroupVersion::Hybrid => "version 1 with version 2 beside it",
                CgroupVersion::Missing => "none",
            };
            let swap = if found.swap_limits { "" } else { "; swap is not limited" };
            Check::ok("cgroups", format!("{name}{swap}"))
        }
        (_, missing) => Check::missing(
            "cgroups",
            format!("no controller for {}", missing.join(", ")),
            "starting containers with such limits",
            "boot with cgroup_enable=memory, and don't turn controllers off",
        ),
    };
    let user_namespaces = match found.user_namespaces {
        UserNamespaceSupport::Works => Check::ok("user namespaces", "containers get ids of their own"),
        UserNamespaceSupport::TurnedOff => Check::warn(
            "user namespaces",
            "turned off",
            "ids of their own for containers",
            "turn them on in the settings",
        ),
        UserNamespaceSupport::Refused(reason) => Check::warn(
            "user namespaces",
            reason,
            "ids of their own for containers: root in one has the host's id 0",
            "sysctl user.max_user_namespaces=65536",
        ),
    };
    let seccomp = if found.seccomp {
        Check::ok("seccomp", "system calls of containers are filtered")
    } else {
        Check::missing(
            "seccomp",
            "kernel or runc can't filter system calls",
            no_container,
            "use a kernel with CONFIG_SECCOMP_FILTER, and a runc with seccomp",
        )
    };
    let freezer = if found.freezer {
        Check::ok("freezer", "containers can be stopped for a moment")
    } else {
        Check::warn(
            "freezer",
            "no cgroup that stops processes",
            "committing Volumes while containers write",
            "mount -t cgroup -o freezer none /sys/fs/cgroup/freezer, or use cgroup version 2",
        )
    };
    let names = if found.name_servers {
        Check::ok("name resolution", "containers use the machine's name servers")
    } else {
        Check::warn(
            "name resolution",
            "no name server that containers reach",
            "names of hosts in containers",
            "name a server outside the loopback in /etc/resolv.conf",
        )
    };
    vec![
        program("runc", found.runc, "apt-get install runc"),
        program("init", found.init.then(|| "tini".to_owned()), "apt-get install tini"),
        program("nftables", found.nft, "apt-get install nftables"),
        cgroups,
        user_namespaces,
        seccomp,
        freezer,
        names,
        gpus(found.gpus_installed, found.gpus_usable),
    ]
}

fn gpus(installed: usize, usable: usize) -> Check {
    let waits = "programs that ask for a GPU wait for ever, or run without by --gpu-fallback cpu";
    match (installed, usable) {
        (0, _) => Check::warn("GPU", "none", waits, "add a GPU and its driver, if programs need one"),
        (installed, usable) if usable < installed => Check::warn(
            "GPU",
            format!("{installed} here, {usable} that containers can be given"),
            waits,
            "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
        ),
        (installed, _) => Check::ok("GPU", format!("{installed} that containers can be given")),
    }
}

fn mmdebstrap(version: Option<&str>) -> Check {
    match version {
        Some(version) => Check::ok("mmdebstrap", version),
        None => Check::warn(
            "mmdebstrap",
            "not found",
            "base images where no registry can be reached",
            "apt-get install mmdebstrap",
        ),
    }
}

fn ca_bundle() -> Check {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let found = named.into_iter().chain(CA_BUNDLES.map(PathBuf::from)).find(|path| path.is_file());
    match found {
        Some(path) => Check::ok("CA bundle", path.display().to_string()),
        None => Check::missing(
            "CA bundle",
            "no certificates of authorities",
            "HTTPS to registries and package indexes, here and in containers",
            "apt-get install ca-certificates",
        ),
    }
}

fn disk(directory: &Path) -> Check {
    let mend = "free some space, or choose another place with --data-dir";
    let space = match rustix::fs::statvfs(directory) {
        Ok(space) => space,
        Err(error) => {
            let found = format!("{}: {error}", directory.display());
            return Check::missing("disk", found, "storing anything", mend);
        }
    };
    let free = space.f_bavail * space.f_frsize;
    let found = format!("{} free at {}", size(free), directory.display());
    match free {
        0..LEAST_DISK => Check::missing("disk", found, "room for even one base image", mend),
        LEAST_DISK..COMFORTABLE_DISK => Check::warn("disk", found, "room for several images", mend),
        _ => Check::ok("disk", found),
    }
}

/// The directory itself, or the nearest above it that exists.
fn nearest_existing(directory: &Path) -> PathBuf {
    directory.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_path_buf()
}

/// The first line that a program prints when asked for its version; none if there is no such program.
fn program_version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.lines().next().unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Status;

    #[test]
    fn kernel_releases_of_distributions_are_read() {
        assert_eq!(version("6.18.0-1-amd64"), Some((6, 18)));
        assert_eq!(version("5.4.0"), Some((5, 4)));
        assert_eq!(version("strange"), None);
    }

    #[test]
    fn gpus_without_a_specification_are_told_apart_from_none() {
        assert_eq!(gpus(0, 0).status, Status::Warn);
        assert_eq!(gpus(2, 2).status, Status::Ok);
        let lacking = gpus(2, 1);
        assert_eq!(lacking.status, Status::Warn);
        assert!(lacking.mend.unwrap().contains("nvidia-ctk"));
    }

    #[test]
    fn a_directory_that_is_not_there_yet_is_judged_by_its_parent() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(nearest_existing(&dir.path().join("a/b")), dir.path());
    }
}
