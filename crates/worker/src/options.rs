//! What a worker must be told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::environment::HostEnvironment;
use crate::proxy::ControlService;

/// Options of a [`Worker`](crate::Worker).
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Name of this worker, unique among those of one control plane and the same after a restart.
    pub worker_id: String,
    /// Control's base address, for example `http://127.0.0.1:7777`. Only `http`: the link between machines has to be
    /// protected by the network.
    pub control: String,
    /// Control itself, where it is in this process: then what containers say needs no connection to it.
    pub control_service: Option<ControlService>,
    /// The worker's credential, sent with each request to control. A container never sees it.
    pub credential: String,
    /// Directory for mount points and the files of running orders. Everything in it belongs to the worker: what an
    /// earlier run left there is removed at the start.
    pub state_dir: PathBuf,
    /// Where the directories of network file systems are.
    pub network_files_dir: PathBuf,
    /// Where the control plane appears inside a container when an order doesn't say it.
    pub listen: SocketAddr,
    /// How many steps of image builds run at the same time; at least one.
    pub concurrent_steps: usize,
    /// How often changes of Volumes are committed without being asked for.
    pub background_commits: Duration,
    /// Where device specifications (CDI) are; they say which GPUs the machine offers.
    pub cdi_dirs: Vec<PathBuf>,
    /// Certificates and settings of this machine that containers inherit.
    pub host_environment: HostEnvironment,
}

impl WorkerOptions {
    /// Options with the usual values: as many steps as there are cores, the environment of this process.
    pub fn new(
        worker_id: impl Into<String>,
        control: impl Into<String>,
        credential: impl Into<String>,
        state_dir: impl Into<PathBuf>,
    ) -> Self {
        let state_dir = state_dir.into();
        Self {
            worker_id: worker_id.into(),
            control: control.into(),
            control_service: None,
            credential: credential.into(),
            network_files_dir: state_dir.join("network-files"),
            state_dir,
            listen: SocketAddr::from(([127, 0, 0, 1], 10101)),
            concurrent_steps: std::thread::available_parallelism().map_or(1, usize::from),
            background_commits: Duration::from_secs(5),
            cdi_dirs: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
            host_environment: HostEnvironment::of_this_process(),
        }
    }
}
