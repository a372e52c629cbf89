//! The runtime of one instance: what it needs from the machine, what is shared between its containers.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::FlockOperation;
use rustix::process::set_child_subreaper;

use crate::cdi::CdiError;
use crate::cgroup::{CgroupError, Hierarchies};
use crate::container::Container;
use crate::names::Names;
use crate::namespaces;
use crate::network::{Network, NetworkError, SubnetRange};
use crate::recovery::{self, RecoverError, Recovered};
use crate::runc::{Runc, RuncError};
use crate::sandbox::{Sandbox, SandboxError};
use crate::slots::Slots;
use crate::spec::{ContainerSpec, SpecError, Stdio};

/// Whether containers get user namespaces of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserNamespaces {
    /// Where this machine allows it.
    Auto,
    /// Never: ids inside are the host's ids.
    Never,
}

/// What an instance's runtime is made from.
#[derive(Debug, Clone)]
pub struct RuntimeOptions {
    /// A directory for the runtime alone, on this machine.
    pub state_dir: PathBuf,
    /// Short name, distinct for each data directory of the machine: all that is made is named after it.
    pub name: String,
    /// Where containers' addresses come from.
    pub subnets: SubnetRange,
    /// Whether containers get user namespaces.
    pub user_namespaces: UserNamespaces,
    /// The OCI runtime.
    pub runc: PathBuf,
    /// A static program that runs a command as its child, forwards signals to it and reaps orphans.
    pub init: PathBuf,
    /// The nftables program.
    pub nft: PathBuf,
    /// Where device specifications are, the later ones before the earlier ones.
    pub cdi_dirs: Vec<PathBuf>,
}

impl RuntimeOptions {
    /// The usual programs and directories of a Debian system.
    pub fn new(state_dir: impl Into<PathBuf>, name: impl Into<String>) -> RuntimeOptions {
        RuntimeOptions {
            state_dir: state_dir.into(),
            name: name.into(),
            subnets: SubnetRange::default(),
            user_namespaces: UserNamespaces::Auto,
            runc: "runc".into(),
            init: "/usr/bin/tini-static".into(),
            nft: "nft".into(),
            cdi_dirs: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
        }
    }
}

/// The runtime could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The state directory can't be used.
    #[error("state directory `{path}` of the container runtime: {source}")]
    StateDir {
        /// The directory or file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "another process uses the container runtime's state directory `{0}`: end it, or use another data directory"
    )]
    InUse(PathBuf),
    /// The init program isn't there.
    #[error("the init program `{path}` for containers: {source}; install the package tini")]
    Init {
        /// The program as configured.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The OCI runtime isn't there.
    #[error(transparent)]
    Runc(#[from] RuncError),
    /// No cgroups.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// This process can't become the parent of containers.
    #[error("becoming the parent of containers (child subreaper): {0}")]
    Subreaper(io::Error),
}

/// A container could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The specification can't be carried out.
    #[error("the container `{id}` can't start: {source}")]
    Spec {
        /// The container.
        id: String,
        /// What is wrong.
        source: SpecError,
    },
    /// A device that was asked for can't be given.
    #[error("the container `{id}` can't start: {source}")]
    Device {
        /// The container.
        id: String,
        /// What is wrong.
        source: CdiError,
    },
    /// A file that the container needs could not be written.
    #[error("the container `{id}` can't start: writing `{path}`: {source}")]
    File {
        /// The container.
        id: String,
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// A container of this id exists.
    #[error("a container `{0}` already exists")]
    Exists(String),
    /// The OCI runtime failed.
    #[error(transparent)]
    Runc(#[from] RuncError),
    /// The started process can't be followed.
    #[error("the container `{id}` started, but its process can't be followed, so it was ended: {source}")]
    Follow {
        /// The container.
        id: String,
        /// What happened.
        source: io::Error,
    },
}

/// Containers of one instance. Cheap to clone; all clones are the same runtime.
#[derive(Debug, Clone)]
pub struct Runtime {
    pub(crate) shared: Arc<Shared>,
}

/// What all sandboxes and containers of an instance use.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: RuntimeOptions,
    pub(crate) names: Names,
    pub(crate) hierarchies: Hierarchies,
    pub(crate) runc: Runc,
    pub(crate) slots: Arc<Slots>,
    pub(crate) user_namespaces: bool,
    network: Mutex<Option<Arc<Network>>>,
    /// Held while the runtime is open, so that recovery never ends what a living process runs.
    _lock: File,
}

impl Runtime {
    /// Opens the runtime. Makes nothing on the machine but the state directory, and makes this process a child
    /// subreaper: it becomes the parent of its containers, and of orphans among its own descendants.
    pub fn open(options: RuntimeOptions) -> Result<Runtime, OpenError> {
        let lock = lock_state_dir(&options.state_dir)?;
        fs::metadata(&options.init)
            .map_err(|source| OpenError::Init { path: options.init.clone(), source })?;
        let runc = Runc::find(options.runc.clone(), options.state_dir.join("runc"))?;
        let hierarchies = Hierarchies::discover()?;
        // The argument only says "on".
        set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|errno| OpenError::Subreaper(errno.into()))?;
        let user_namespaces = match options.user_namespaces {
            UserNamespaces::Never => false,
            UserNamespaces::Auto => user_namespaces_work(),
        };
        Ok(Runtime {
            shared: Arc::new(Shared {
                names: Names::new(&options.name),
                runc,
                options,
                hierarchies,
                slots: Arc::new(Slots::default()),
                user_namespaces,
                network: Mutex::new(None),
                _lock: lock,
            }),
        })
    }

    /// Ends and removes everything that an earlier process of this instance left on the machine. To be called before
    /// the first sandbox is made.
    pub fn recover(&self) -> Result<Recovered, RecoverError> {
        recovery::recover(&self.shared)
    }

    /// Ends every container of the instance and removes all that the runtime made on the machine. The runtime can be used
    /// again afterwards.
    pub fn shutdown(&self) -> Result<Recovered, RecoverError> {
        recovery::recover(&self.shared)
    }

    /// Makes namespaces and a network for one container. The first call makes the instance's network.
    pub fn sandbox(&self, task: &str) -> Result<Sandbox, SandboxError> {
        Sandbox::make(&self.shared, task)
    }

    /// Starts a container in a sandbox, which must outlive it and must not be used for a second one.
    ///
    /// The pipes of `stdio` pass to the container. When this fails, what was written to them is not the container's.
    pub fn start(
        &self,
        sandbox: &Sandbox,
        spec: &ContainerSpec,
        stdio: Stdio,
    ) -> Result<Container, StartError> {
        Container::start(&self.shared, sandbox, spec, stdio)
    }
}

impl Shared {
    /// The instance's network, made when it isn't there yet.
    pub(crate) fn network(&self) -> Result<Arc<Network>, NetworkError> {
        let mut network = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(network) = network.as_ref() {
            return Ok(Arc::clone(network));
        }
        let made = Arc::new(Network::up(
            &self.names,
            self.options.subnets,
            &self.options.nft,
            &self.options.state_dir,
        )?);
        *network = Some(Arc::clone(&made));
        Ok(made)
    }

    pub(crate) fn detach(&self, slot: u32) -> Result<(), NetworkError> {
        let network = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        match network.as_ref() {
            Some(network) => network.detach(slot),
            None => Ok(()),
        }
    }

    /// Removes the instance's network, also when this process didn't make it.
    pub(crate) fn remove_network(&self) -> Result<usize, NetworkError> {
        let mut network = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        *network = None;
        crate::network::remove(&self.names, &self.options.nft, &self.options.state_dir)
    }

    pub(crate) fn bundles(&self) -> PathBuf {
        self.options.state_dir.join("bundles")
    }
}

fn user_namespaces_work() -> bool {
    match namespaces::probe_user_namespaces() {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, "containers run without user namespaces");
            false
        }
    }
}

fn lock_state_dir(directory: &Path) -> Result<File, OpenError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::StateDir { path, source }
    };
    fs::create_dir_all(directory.join("bundles")).map_err(failed(directory))?;
    fs::create_dir_all(directory.join("runc")).map_err(failed(directory))?;
    let path = directory.join("lock");
    let lock = File::create(&path).map_err(failed(&path))?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::InUse(directory.to_owned())),
        Err(errno) => Err(failed(&path)(errno.into())),
    }
}
