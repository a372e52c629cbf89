//! The worker itself: what it is made from, how it runs, how it stops.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use homeport_fs::SnapshotFs;
use homeport_image::base::Bases;
use homeport_proto::worker::{Gpu, Hello};
use homeport_runtime::Runtime;
use homeport_store::Store;
use http::HeaderValue;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::error::WorkerError;
use crate::link::{self, Link};
use crate::node::Node;
use crate::options::WorkerOptions;
use crate::orders::Running;
use crate::proxy::ControlAddress;
use crate::reports::{self, Outbox};
use crate::site;
use crate::volumes::{self, Volumes};

/// The node agent of one machine. Made by [`Worker::new`], it does nothing before [`Worker::run`].
#[derive(Debug)]
pub struct Worker {
    node: Arc<Node>,
    link: Link,
    outbox: Outbox,
}

impl Worker {
    /// Checks the options and clears the state directory. The runtime must have recovered before, so that nothing of an
    /// earlier run is still there.
    ///
    /// # Errors
    ///
    /// When an option can't be used, or the state directory can't be cleared.
    pub fn new(
        mut options: WorkerOptions,
        store: Arc<Store>,
        fs: Arc<SnapshotFs>,
        runtime: Arc<Runtime>,
        bases: Arc<Bases>,
    ) -> Result<Self, WorkerError> {
        let bad_address = || WorkerError::Control(options.control.clone());
        let control = ControlAddress::parse(&options.control).ok_or_else(bad_address)?;
        let endpoint = link::endpoint(&options.control).map_err(|_| bad_address())?;
        let credential = options.credential.parse().map_err(|_| WorkerError::Credential)?;
        let mut header = HeaderValue::try_from(&options.credential).map_err(|_| WorkerError::Credential)?;
        header.set_sensitive(true);
        let state_dir = |path: &Path| {
            let path = path.to_owned();
            move |source| WorkerError::StateDir { path, source }
        };
        let sites = options.state_dir.join("sites");
        site::clear(&sites).map_err(state_dir(&sites))?;
        let staging = options.state_dir.join("volumes");
        volumes::clear_staging(&staging).map_err(state_dir(&staging))?;
        let volumes = Volumes::default();
        volumes::take_up(&fs, &store, &volumes)?;
        let bundle = options.state_dir.join("ca-certificates.crt");
        options.host_environment.keep_bundle_at(&bundle).map_err(state_dir(&bundle))?;
        let hello = hello(&options);
        let (reports, outbox) = reports::channel();
        let node = Arc::new(Node {
            control,
            credential: header,
            store,
            fs,
            runtime,
            bases,
            reports,
            sites,
            staging,
            volumes,
            step_slots: Semaphore::new(options.concurrent_steps.max(1)),
            options,
        });
        Ok(Self { node, link: Link { endpoint, credential, hello }, outbox })
    }

    /// Carries out control's orders until `shutdown`. Then everything that runs is killed, taken down and reported, and
    /// when this returns nothing is left.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { node, link, outbox } = self;
        let running = Running::new(Arc::clone(&node));
        let left = CancellationToken::new();
        let stop = async {
            shutdown.cancelled().await;
            running.close();
            running.kill_all();
            running.ended().await;
            left.cancel();
        };
        let repeat = left.run_until_cancelled(node.volumes.repeat(&node.reports));
        let hear = left.run_until_cancelled(node.volumes.hear_sync(&node.reports));
        tokio::join!(link.run(outbox, &running, &shutdown, &left), stop, repeat, hear);
    }
}

fn hello(options: &WorkerOptions) -> Hello {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let system = rustix::system::sysinfo();
    Hello {
        worker_id: options.worker_id.clone(),
        milli_cpu: u32::try_from(cores.saturating_mul(1000)).unwrap_or(u32::MAX),
        memory_bytes: system.totalram.saturating_mul(u64::from(system.mem_unit)),
        gpus: gpus(&options.cdi_dirs),
    }
}

fn gpus(cdi_dirs: &[PathBuf]) -> Vec<Gpu> {
    homeport_runtime::gpus(cdi_dirs)
        .into_iter()
        .map(|gpu| Gpu { device: gpu.device, model: gpu.model, memory_bytes: gpu.memory_bytes })
        .collect()
}
