//! The server's parts, and how they are joined into one router.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use homeport_control::{Control, ControlOptions, Policy, Retention};
use homeport_fs::{BackendChoice, SnapshotFs};
use homeport_gateway::{BlobOptions, BlobStore, Metrics};
use homeport_hub::{DirectoryCatalog, HubOptions, HubState};
use homeport_image::{BaseOptions, Bases};
use homeport_meta::Meta;
use homeport_runtime::{Runtime, RuntimeOptions};
use homeport_store::Store;
use homeport_worker::{ControlService, Worker, WorkerOptions};
use rand::Rng as _;
use tokio_util::sync::CancellationToken;

use crate::data_dir::{DataDir, url_of};
use crate::settings::UpSettings;
use crate::upkeep::upkeep;

/// How much longer than the result of a call a blob is kept: it comes before the call's end.
const BLOB_MARGIN: Duration = Duration::from_secs(24 * 60 * 60);
/// How long an upload may rest before it counts as given up.
const UPLOAD_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// The same for files that arrive in blocks, which go on where they were.
const BLOCK_UPLOAD_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Seconds without a sign of life after which an ephemeral app ends; clients give one every 15.
const HEARTBEAT_TIMEOUT: f64 = 45.0;
const SWEEP_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Why a part of the server could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WiringError {
    #[error(transparent)]
    Meta(#[from] homeport_meta::OpenError),
    #[error(transparent)]
    Store(#[from] homeport_store::StoreError),
    #[error(transparent)]
    Blobs(#[from] homeport_gateway::OpenError),
    #[error(transparent)]
    Models(#[from] homeport_hub::CatalogError),
    #[error(transparent)]
    Records(#[from] homeport_control::RegistryError),
    #[error(transparent)]
    Snapshots(#[from] homeport_fs::FsError),
    #[error(transparent)]
    Runtime(#[from] homeport_runtime::OpenError),
    #[error("what an earlier run left could not be removed")]
    Recovery(#[from] homeport_runtime::RecoverError),
    #[error(transparent)]
    Worker(#[from] homeport_worker::WorkerError),
}

/// The open parts of a server.
pub(crate) struct Parts {
    meta: Meta,
    /// What every client of this server is served by.
    pub(crate) router: Router,
    background: tokio::task::JoinSet<()>,
    stop: CancellationToken,
    control: Control,
    worker: tokio::task::JoinHandle<()>,
    stop_worker: CancellationToken,
    runtime: Arc<Runtime>,
}

/// What decides, and what it stands on: no container runs and nobody is listened to.
pub(crate) struct Ground {
    pub(crate) meta: Meta,
    store: Arc<Store>,
    blobs: Arc<BlobStore>,
    models: Arc<DirectoryCatalog>,
    pub(crate) control: Control,
}

impl Ground {
    /// Opens it in a data directory on which no server runs.
    pub(crate) async fn open(
        settings: &UpSettings,
        base_url: &str,
        credential: &str,
    ) -> Result<Ground, WiringError> {
        let data_dir = DataDir::new(&settings.data_dir);
        let meta = Meta::open(data_dir.root()).await?;
        let store = Arc::new(Store::open(&data_dir.store())?);
        let blobs = Arc::new(BlobStore::open(BlobOptions::new(data_dir.blobs()), Arc::new(SystemTime::now))?);
        let models = Arc::new(DirectoryCatalog::open(&data_dir.models())?);
        let options = ControlOptions {
            policy: Policy {
                gpu_fallback_cpu: settings.gpu_fallback.is_some(),
                retention: settings.keep_results.as_secs_f64(),
                ..Policy::default()
            },
            heartbeat_timeout: HEARTBEAT_TIMEOUT,
            worker_credential: credential.to_owned(),
            base_url: base_url.to_owned(),
            retention: Retention { versions: settings.keep_versions, days: settings.keep_days },
            gc_grace: settings.gc_grace,
            models: Arc::<DirectoryCatalog>::clone(&models),
            network_files_dir: data_dir.network_files(),
            secrets_key: data_dir.secrets_key(),
        };
        let control = Control::open(options, meta.clone(), Arc::clone(&store), Arc::clone(&blobs)).await?;
        Ok(Ground { meta, store, blobs, models, control })
    }
}

impl Parts {
    /// Opens the parts of a data directory, lowest first. `listen` is where the router will be served.
    pub(crate) async fn open(
        settings: &UpSettings,
        listen: std::net::SocketAddr,
    ) -> Result<Parts, WiringError> {
        let data_dir = DataDir::new(&settings.data_dir);
        let base_url = url_of(listen);
        let stop = CancellationToken::new();
        let mut background = tokio::task::JoinSet::new();

        // Made anew at each start: only the worker in this process has to know it.
        let credential: String =
            rand::rng().sample_iter(rand::distr::Alphanumeric).take(43).map(char::from).collect();
        let Ground { meta, store, blobs, models, control } =
            Ground::open(settings, &base_url, &credential).await?;
        background.spawn(sweep_blobs(Arc::clone(&blobs), settings.keep_results + BLOB_MARGIN, stop.clone()));
        let hub = HubState { store: Arc::clone(&store), catalog: models, options: HubOptions::default() };
        background.spawn(control.clone().run(stop.clone()));
        background.spawn(control.clone().forget_old_uploads(stop.clone()));

        let runtime = RuntimeOptions::new(data_dir.runtime(), data_dir.instance_name());
        let runtime = Arc::new(Runtime::open(runtime)?);
        let recovered = runtime.recover()?;
        tracing::debug!(?recovered, "removed what an earlier run left");
        let fs = Arc::new(SnapshotFs::open(Arc::clone(&store), &data_dir.snapshots(), BackendChoice::Auto)?);
        tracing::info!(backend = ?fs.backend(), "snapshots can be mounted");
        if let Err(error) = homeport_fs::raise_redirect_limit() {
            tracing::warn!(%error, "committed files with long paths can't be renamed into other directories");
        }
        let bases = Arc::new(Bases::new(Arc::clone(&store), BaseOptions::new(data_dir.bases())));
        control.attach_upkeep(upkeep(&data_dir, Arc::clone(&fs), Arc::clone(&bases)));
        let metrics = Metrics::default();
        metrics.register(|registry| control.register_metrics(registry));
        metrics.register(|registry| blobs.blocks().register_metrics(registry));
        let router = Router::new()
            .merge(homeport_gateway::content_router(Arc::clone(&blobs), Arc::clone(&store)))
            .merge(homeport_gateway::router(blobs, metrics))
            .merge(control.routes())
            .merge(homeport_hub::router(hub));
        let mut options = WorkerOptions::new("local", base_url.clone(), credential, data_dir.worker());
        options.control_service = Some(ControlService::new(router.clone()));
        options.network_files_dir = data_dir.network_files();
        options.background_commits = settings.commit_interval;
        let stop_worker = CancellationToken::new();
        let worker = Worker::new(options, store, fs, Arc::clone(&runtime), bases)?;
        let worker = tokio::spawn(worker.run(stop_worker.clone()));
        // After the worker, which has claimed by now what an earlier run left of Volumes.
        background.spawn(control.clone().look_after_store(stop.clone()));

        tracing::info!(%base_url, "parts are open");
        Ok(Parts { meta, router, background, stop, control, worker, stop_worker, runtime })
    }

    /// Ends everything that runs, highest first.
    pub(crate) async fn close(mut self) {
        self.control.begin_shutdown();
        self.stop_worker.cancel();
        if let Err(error) = self.worker.await {
            tracing::error!(%error, "the worker ended badly");
        }
        if let Err(error) = self.runtime.shutdown() {
            tracing::error!(%error, "the container runtime left something behind");
        }
        self.stop.cancel();
        while self.background.join_next().await.is_some() {}
        self.meta.close().await;
    }
}

async fn sweep_blobs(blobs: Arc<BlobStore>, age: Duration, stop: CancellationToken) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = interval.tick() => {}
        }
        let (blobs, sweeping) = (Arc::clone(&blobs), Arc::clone(&blobs));
        match tokio::task::spawn_blocking(move || blobs.sweep(age, UPLOAD_AGE)).await {
            Ok(Ok(swept)) if swept.blobs + swept.uploads > 0 => {
                tracing::info!(blobs = swept.blobs, uploads = swept.uploads, "swept blobs");
            }
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot sweep the blobs"),
        }
        match tokio::task::spawn_blocking(move || sweeping.blocks().sweep(BLOCK_UPLOAD_AGE)).await {
            Ok(Ok(uploads)) if uploads > 0 => {
                tracing::info!(uploads, "swept uploads that nobody went on with")
            }
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot sweep the uploads"),
        }
    }
}
