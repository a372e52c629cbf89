//! The control plane: one value that owns all decisions, and the loop that carries them out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use homeport_gateway::BlobStore;
use homeport_hub::ModelCatalog;
use homeport_meta::Meta;
use homeport_proto::client as pb;
use homeport_store::Store;
use tokio_util::sync::CancellationToken;

use crate::auth::Trusted;
use crate::builds::Builds;
use crate::clock::{Clock, Seconds, SystemClock};
use crate::durable::Durable;
use crate::environments::Environments;
use crate::ids::{Entropy, SystemEntropy};
use crate::layers::ClientLayers;
use crate::links::Links;
use crate::logs::Logs;
use crate::network_files::NetworkFiles;
use crate::registry::{Registry, RegistryError};
use crate::scheduler::{Effect, Policy, Scheduler, StopSignal};
use crate::secrets::Secrets;
use crate::storage::Storage;
use crate::volumes::{Retention, Volumes};

/// Seconds between two ticks that are worth a warning.
const LATE_TICK: Seconds = 3.0;

/// How the control plane shall behave.
#[derive(Debug, Clone)]
pub struct ControlOptions {
    /// The scheduler's policy.
    pub policy: Policy,
    /// Seconds without a heartbeat after which an ephemeral app is ended.
    pub heartbeat_timeout: Seconds,
    /// What workers must present.
    pub worker_credential: String,
    /// Where people see the server, for addresses in messages; without a trailing slash.
    pub base_url: String,
    /// What is kept of the history of Volumes that say nothing of their own.
    pub retention: Retention,
    /// How old content that nothing refers to must be before it is removed.
    pub gc_grace: Duration,
    /// The models of the hub.
    pub models: Arc<dyn ModelCatalog>,
    /// Where the directories of network file systems are.
    pub network_files_dir: std::path::PathBuf,
    /// The file with the key that seals secrets; made where nothing was sealed before.
    pub secrets_key: std::path::PathBuf,
}

/// The control plane. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Control(Arc<Inner>);

/// What all clones of a [`Control`] share.
pub struct Inner {
    pub(crate) options: ControlOptions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Box<dyn Entropy>,
    pub(crate) registry: Registry,
    pub(crate) store: Arc<Store>,
    pub(crate) blobs: Arc<BlobStore>,
    pub(crate) logs: Logs,
    /// Numbers of entries that clients hold begin here, above those of every earlier run.
    pub(crate) first_entry: u64,
    pub(crate) links: Links,
    pub(crate) builds: Builds,
    pub(crate) client_layers: ClientLayers,
    pub(crate) durable: Durable,
    pub(crate) trusted: Trusted,
    pub(crate) network_files: NetworkFiles,
    pub(crate) volumes: Arc<Volumes>,
    pub(crate) storage: Storage,
    pub(crate) secrets: Secrets,
    pub(crate) environments: Environments,
    scheduler: Mutex<Scheduler>,
    heartbeats: Mutex<HashMap<String, Seconds>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("options", &self.options).finish_non_exhaustive()
    }
}

impl std::ops::Deref for Control {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Control {
    /// Reads what exists and takes up what a stop or a crash left unfinished.
    pub async fn open(
        options: ControlOptions,
        meta: Meta,
        store: Arc<Store>,
        blobs: Arc<BlobStore>,
    ) -> Result<Self, RegistryError> {
        Self::open_at(options, meta, store, blobs, Arc::new(SystemClock::default())).await
    }

    pub(crate) async fn open_at(
        options: ControlOptions,
        meta: Meta,
        store: Arc<Store>,
        blobs: Arc<BlobStore>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, RegistryError> {
        let registry = Registry::load(meta.clone(), Arc::clone(&clock)).await?;
        let first_entry = (clock.now() * 1e6) as u64;
        let network_files = NetworkFiles::load(meta.clone(), options.network_files_dir.clone()).await?;
        let lives = |app_id: &str| registry.app(app_id).is_some();
        let volumes = Volumes::load(meta.clone(), Arc::clone(&store), Arc::clone(&clock), &lives).await?;
        let volumes = volumes.with_retention(options.retention);
        let key_path = options.secrets_key.clone();
        let secrets = Secrets::load(meta.clone(), Arc::clone(&clock), key_path, lives).await?;
        let environments = Environments::load(meta.clone()).await?;
        let control = Self(Arc::new(Inner {
            scheduler: Mutex::new(Scheduler::new(options.policy)),
            options,
            logs: Logs::new(first_entry),
            first_entry,
            clock,
            entropy: Box::new(SystemEntropy),
            registry,
            store,
            blobs,
            links: Links::default(),
            builds: Builds::default(),
            client_layers: ClientLayers::default(),
            durable: Durable::new(meta),
            trusted: Trusted::default(),
            network_files,
            volumes: Arc::new(volumes),
            storage: Storage::default(),
            secrets,
            environments,
            heartbeats: Mutex::default(),
        }));
        control.resume().await?;
        Ok(control)
    }

    /// Gives every function its pool and every surviving call its inputs back.
    async fn resume(&self) -> Result<(), RegistryError> {
        for app in self.registry.apps() {
            match app.state() {
                pb::AppState::Ephemeral | pb::AppState::Initializing | pb::AppState::Detached => {
                    self.beat(&app.id)
                }
                pb::AppState::Stopping => {
                    self.finish_app(&app.id).await;
                    continue;
                }
                _ => {}
            }
            self.refresh_pools(&app.id);
        }
        for call in self.durable.unfinished().await? {
            // Bound functions come back when they are used.
            if let Some(function) = self.registry.find_function(call.pool_id()).await? {
                self.refresh_pool(&function);
            }
            self.with_scheduler(|scheduler, now| call.restore(scheduler, now));
        }
        Ok(())
    }

    /// The server is about to end its containers: nothing new starts from here on.
    pub fn begin_shutdown(&self) {
        self.with_scheduler(|scheduler, _| scheduler.begin_shutdown());
    }

    /// Runs the passing of time until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut interval = tokio::time::interval(Duration::from_millis(200));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last = self.clock.now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = interval.tick() => {}
            }
            let now = self.clock.now();
            if now - last > LATE_TICK {
                tracing::warn!(
                    seconds = now - last,
                    "timeouts were looked after late: the server was held up"
                );
            }
            last = now;
            self.with_scheduler(|scheduler, now| scheduler.tick(now));
            self.end_abandoned_apps();
            self.look_after_builds();
            self.end_abandoned_network_files().await;
            self.look_after_volumes();
            self.look_after_results();
        }
    }

    /// One step of the scheduler, and what follows from it outside.
    pub(crate) fn with_scheduler<R>(&self, step: impl FnOnce(&mut Scheduler, Seconds) -> R) -> R {
        let now = self.clock.now();
        let (answer, effects) = {
            // A panic inside a step would be a bug; the state stays readable for the others.
            let mut scheduler = self.scheduler.lock().unwrap_or_else(PoisonError::into_inner);
            let answer = step(&mut scheduler, now);
            (answer, scheduler.take_effects())
        };
        for effect in effects {
            self.carry_out(effect);
        }
        answer
    }

    fn carry_out(&self, effect: Effect) {
        match effect {
            Effect::Launch(launch) => {
                let control = self.clone();
                tokio::spawn(async move { control.launch(launch).await });
            }
            Effect::Signal { worker_id, task_id, signal } => {
                let kind = match signal {
                    StopSignal::Interrupt => homeport_proto::worker::Signal::Interrupt,
                    StopSignal::Kill => homeport_proto::worker::Signal::Kill,
                };
                self.links.signal(&worker_id, &task_id, kind);
            }
            Effect::Notice { app_id, text } => {
                tracing::info!(app = app_id, "{text}");
                self.logs.say(&app_id, &text, self.clock.now());
            }
            Effect::SaveOutput { .. }
            | Effect::SaveFailures { .. }
            | Effect::ParkCall { .. }
            | Effect::ForgetCall { .. } => {
                let control = self.clone();
                tokio::spawn(async move { control.durable.carry_out(effect).await });
            }
            Effect::Retired { function_id } => self.registry.set_aside(&function_id),
            Effect::AppQuiet { app_id } => {
                let control = self.clone();
                tokio::spawn(async move { control.finish_app(&app_id).await });
            }
        }
    }

    /// A sign of life of an app's client.
    pub(crate) fn beat(&self, app_id: &str) {
        let now = self.clock.now();
        self.heartbeats.lock().unwrap_or_else(PoisonError::into_inner).insert(app_id.to_owned(), now);
    }

    pub(crate) fn silent_apps(&self) -> Vec<String> {
        let oldest = self.clock.now() - self.options.heartbeat_timeout;
        let heartbeats = self.heartbeats.lock().unwrap_or_else(PoisonError::into_inner);
        heartbeats.iter().filter(|(_, at)| **at < oldest).map(|(id, _)| id.clone()).collect()
    }

    pub(crate) fn forget_heartbeat(&self, app_id: &str) {
        self.heartbeats.lock().unwrap_or_else(PoisonError::into_inner).remove(app_id);
    }
}
