//! Runs `mmdebstrap` and reads the root that it writes.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use homeport_content::Tree;
use homeport_store::Store;
use tokio::io::{AsyncBufReadExt, BufReader as AsyncBufReader};
use tokio::process::{ChildStderr, Command};
use tokio::sync::oneshot;

use super::BootstrapError;
use super::apt_config::Setting;
use super::apt_sources::Sources;
use super::wanted::{Distribution, Release};
use crate::base::Log;
use crate::base::layer::{LayerError, Layering, Limits};
use crate::base::tar_stream::TarError;

/// Lines of output kept for the message of a failure.
const LAST_LINES: usize = 12;
/// Hook that makes `/bin`, `/lib` and so on links into `/usr` without the package that needs Perl for it.
const MERGED_USR: &str = "/usr/share/mmdebstrap/hooks/merged-usr";

/// Puts `pip` where `pip` itself would: as a package of the distribution it and what it needs could be
/// neither upgraded nor replaced by `pip`. Before 3.12 official images have `setuptools` too.
const INSTALL_PIP: &str = r#"chroot "$1" /bin/sh -ec '
    cd /usr/share/python-wheels
    packages=pip
    if python3 -c "import sys; sys.exit(sys.version_info >= (3, 12))"; then packages="pip setuptools"; fi
    PYTHONPATH=$(echo pip-*.whl) PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet \
        --no-index --no-cache-dir --find-links . $packages'"#;

/// Mounts and processes of the bootstrap end with its first process.
const NAMESPACES: [&str; 7] =
    ["--mount", "--pid", "--fork", "--kill-child", "--propagation=private", "--mount-proc", "--"];

/// The root is made in memory where there is enough: installing packages syncs thousands of files.
const IN_MEMORY: &str = r#"mount -t tmpfs -o size=2g,mode=0755 bootstrap "$TMPDIR" && exec "$0" "$@""#;
const ON_DISK: &str = r#"exec "$0" "$@""#;

/// What is to be made.
pub(super) struct Recipe {
    pub(super) release: &'static Release,
    pub(super) sources: Sources,
    pub(super) settings: Vec<Setting>,
    pub(super) with_python: bool,
}

impl Recipe {
    /// Whether the release has the small package that vouches for a root made with [`MERGED_USR`].
    fn is_usr_merged(&self) -> bool {
        self.release.distribution == Distribution::Debian && self.release.codename != "bullseye"
    }

    fn packages(&self) -> Vec<&'static str> {
        let mut packages = vec!["ca-certificates", "netbase", "tzdata"];
        if self.is_usr_merged() {
            packages.push("usr-is-merged");
        }
        if self.with_python {
            // Headers are part of the official images, and so is `venv`, which brings the wheel of `pip`.
            packages.extend(["python3", "python3-venv", "libpython3-dev"]);
        }
        packages
    }

    /// Arguments of `mmdebstrap`: all that decides what it makes.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = vec![
            "--mode=root".to_owned(),
            "--variant=minbase".to_owned(),
            "--format=tar".to_owned(),
            format!("--include={}", self.packages().join(",")),
            "--aptopt=Acquire::Languages \"none\"".to_owned(),
            "--aptopt=Acquire::Retries \"3\"".to_owned(),
        ];
        arguments.extend(self.settings.iter().map(|setting| format!("--aptopt={}", setting.line())));
        arguments.extend(super::finish::DPKG_OPTIONS.iter().map(|option| format!("--dpkgopt={option}")));
        if self.with_python {
            arguments.push(format!("--customize-hook={INSTALL_PIP}"));
        }
        if self.is_usr_merged() && Path::new(MERGED_USR).is_dir() {
            arguments.push(format!("--hook-dir={MERGED_USR}"));
        }
        arguments.extend([self.release.codename.to_owned(), "-".to_owned()]);
        arguments.extend(self.sources.lines());
        arguments
    }
}

/// Makes the root. It works in namespaces of its own: when it ends or is given up, no process and no
/// mount of it is left, and its directory is in the store's scratch.
pub(super) async fn run(
    store: Arc<Store>,
    recipe: &Recipe,
    limits: Limits,
    log: &Log,
) -> Result<Tree, BootstrapError> {
    let scratch = store.scratch_dir()?;
    let mut child = Command::new("unshare")
        .args(NAMESPACES)
        .args(["/bin/sh", "-c", if has_memory_to_spare() { IN_MEMORY } else { ON_DISK }])
        .arg("mmdebstrap")
        .args(recipe.arguments())
        .env("TMPDIR", scratch.path())
        .env("LC_ALL", "C.UTF-8")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(not_started)?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(BootstrapError::Cancelled);
    };
    let stdout = File::from(stdout.into_owned_fd().map_err(not_started)?);
    let (ended_well, verdict) = oneshot::channel();
    let reading = tokio::task::spawn_blocking(move || read_root(&store, stdout, limits, verdict));
    let last_lines = follow(stderr, log).await;
    let status = child.wait().await.map_err(not_started)?;
    // Nobody listens if reading has failed; that error comes below.
    let _ = ended_well.send(status.success());
    let read = reading.await.map_err(|_| BootstrapError::Cancelled)?;
    match (read, status.success()) {
        (Ok(Some(tree)), _) => Ok(tree),
        // A reader that stops breaks the pipe of the writer: its reason comes first.
        (Err(error), false) if !is_truncation(&error) => Err(error.into()),
        (Err(error), true) => Err(error.into()),
        (_, _) if status.code() == Some(127) => Err(BootstrapError::NoProgram {
            program: "mmdebstrap",
            package: "mmdebstrap",
            source: std::io::ErrorKind::NotFound.into(),
        }),
        (_, _) => Err(BootstrapError::Failed {
            what: recipe.release.codename.to_owned(),
            status: status.to_string(),
            last_words: last_lines.join("; "),
        }),
    }
}

fn has_memory_to_spare() -> bool {
    const ENOUGH_KIB: u64 = 4 << 20;
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let available = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
    available.is_some_and(|available: u64| available >= ENOUGH_KIB)
}

fn not_started(source: std::io::Error) -> BootstrapError {
    BootstrapError::NoProgram { program: "unshare", package: "util-linux", source }
}

fn is_truncation(error: &LayerError) -> bool {
    matches!(error, LayerError::Tar(TarError::Truncated(_)))
}

/// Reads the root from `stdout`; its files are kept only if the writer ended well. Blocking.
fn read_root(
    store: &Store,
    mut stdout: File,
    limits: Limits,
    ended_well: oneshot::Receiver<bool>,
) -> Result<Option<Tree>, LayerError> {
    let stored = |source| LayerError::Store { path: "/".to_owned(), source };
    let batch = store.batch().map_err(stored)?;
    let mut layering = Layering::new(&batch, limits).skipping(is_left_out);
    let mut buffered = std::io::BufReader::with_capacity(1 << 16, &mut stdout);
    layering.apply(&mut buffered)?;
    std::io::copy(&mut buffered, &mut std::io::sink()).map_err(TarError::from)?;
    let tree = layering.finish();
    if !ended_well.blocking_recv().unwrap_or(false) {
        return Ok(None);
    }
    batch.publish().map_err(stored)?;
    Ok(Some(tree))
}

/// What the making leaves behind and no image needs, and what is of this machine.
fn is_left_out(path: &[u8]) -> bool {
    const BELOW: [&[u8]; 8] = [
        b"dev/",
        b"run/",
        b"tmp/",
        b"var/cache/apt/",
        b"var/cache/ldconfig/",
        b"var/lib/apt/lists/",
        b"var/log/apt/",
        b"var/tmp/",
    ];
    const EXACT: [&[u8]; 11] = [
        b"etc/hostname",
        b"etc/resolv.conf",
        b"etc/apt/sources.list",
        b"etc/apt/apt.conf.d/99mmdebstrap",
        b"etc/dpkg/dpkg.cfg.d/99mmdebstrap",
        b"var/log/alternatives.log",
        b"var/log/bootstrap.log",
        b"var/log/dpkg.log",
        b"var/lib/dpkg/status-old",
        b"var/lib/dpkg/diversions-old",
        b"var/cache/debconf/config.dat-old",
    ];
    BELOW.iter().any(|directory| path.starts_with(directory)) || EXACT.contains(&path)
}

/// Stages, warnings and errors; packages being unpacked one by one are of no interest.
fn is_for_the_log(line: &str) -> bool {
    let is_stage = line.starts_with("I: ") && !line.contains("hook") && !line.contains("tempdir");
    is_stage || line.starts_with("W: ") || line.starts_with("E: ") || line.starts_with("Err:")
}

/// Passes the output on to the log; returns its last lines.
async fn follow(output: ChildStderr, log: &Log) -> Vec<String> {
    let mut last_lines = VecDeque::new();
    let mut lines = AsyncBufReader::new(output).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line);
        // Progress bars overwrite themselves.
        let line = line.rsplit('\r').next().unwrap_or_default().trim_end();
        if line.is_empty() || line.starts_with("(Reading database") {
            continue;
        }
        if is_for_the_log(line) {
            log(&format!("  {line}"));
        }
        if last_lines.len() == LAST_LINES {
            last_lines.pop_front();
        }
        last_lines.push_back(line.to_owned());
    }
    last_lines.into()
}
