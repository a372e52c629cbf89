//! What all orders of a worker share.

use std::path::PathBuf;
use std::sync::Arc;

use homeport_fs::SnapshotFs;
use homeport_image::base::Bases;
use homeport_runtime::Runtime;
use homeport_store::Store;
use http::HeaderValue;
use tokio::sync::Semaphore;

use crate::options::WorkerOptions;
use crate::proxy::ControlAddress;
use crate::reports::Reports;
use crate::volumes::Volumes;

/// The means by which orders are carried out.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) options: WorkerOptions,
    pub(crate) control: ControlAddress,
    pub(crate) credential: HeaderValue,
    pub(crate) store: Arc<Store>,
    pub(crate) fs: Arc<SnapshotFs>,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) bases: Arc<Bases>,
    pub(crate) reports: Reports,
    /// Where the directories of running orders are.
    pub(crate) sites: PathBuf,
    /// Where the Volumes of running tasks are mounted before they are bound into containers.
    pub(crate) staging: PathBuf,
    pub(crate) volumes: Volumes,
    /// One permit for each step that may run at the same time.
    pub(crate) step_slots: Semaphore,
}
