//! Base images: brought into the store from a registry, or bootstrapped where no registry can be reached.
//!
//! An image that a registry knows comes from there, always. Only if the registry can't be reached, and
//! the image is one of Python, Debian or Ubuntu, the machine's own package archive takes its place, and
//! the log says so. A registry that answers "no such image" is believed.

mod architecture;
pub mod bootstrap;
pub(crate) mod compression;
mod error;
pub mod layer;
mod record;
pub mod registry;
pub mod tar_stream;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use homeport_content::SnapshotId;
use homeport_store::Store;

use crate::config::ImageConfig;
use layer::Limits;
use record::Records;

pub use architecture::{architecture, debian_architecture};
pub use error::BaseError;

/// Takes lines for the build log, without their line ends.
pub type Log = Arc<dyn Fn(&str) + Send + Sync>;

/// A login at a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password or access token.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// How base images are found.
#[derive(Clone, Debug)]
pub struct BaseOptions {
    /// Where it is remembered which snapshot an image became. It may be emptied at any time.
    pub cache_dir: PathBuf,
    /// URL of a registry that is asked for Docker Hub's images before Docker Hub, for example
    /// `http://10.0.0.1:5000`.
    pub registry_mirror: Option<String>,
    /// Whether to ask registries at all. Without, images are bootstrapped.
    pub registries: bool,
    /// How long to try to connect to a registry. Its first answer may take three times as long.
    pub connect_timeout: Duration,
    /// How long a registry that couldn't be reached isn't asked again.
    pub unreachable_for: Duration,
    /// Whether to bootstrap where no registry can be reached.
    pub bootstrap: bool,
    /// How old a bootstrapped image may be before it is made anew.
    pub bootstrap_max_age: Duration,
    /// The directory of the machine's apt configuration.
    pub apt_dir: PathBuf,
    /// Bounds on an unpacked image.
    pub limits: Limits,
}

impl BaseOptions {
    /// The defaults, with records in `cache_dir`.
    pub fn new(cache_dir: PathBuf) -> Self {
        Self {
            cache_dir,
            registry_mirror: None,
            registries: true,
            connect_timeout: Duration::from_secs(4),
            unreachable_for: Duration::from_secs(60),
            bootstrap: true,
            bootstrap_max_age: Duration::from_secs(7 * 24 * 3600),
            apt_dir: PathBuf::from("/etc/apt"),
            limits: Limits::default(),
        }
    }
}

/// Resolves references to base images. Share it: requests for one image at a time are one.
pub struct Bases {
    store: Arc<Store>,
    options: BaseOptions,
    records: Records,
    /// One lock for each image that is being brought.
    gates: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Registries that couldn't be reached, until when they aren't asked, and why.
    unreachable: Mutex<HashMap<String, (Instant, String)>>,
}

impl std::fmt::Debug for Bases {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Bases").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Bases {
    /// Base images in `store`.
    pub fn new(store: Arc<Store>, options: BaseOptions) -> Self {
        let records = Records::new(options.cache_dir.join("bases"));
        Self { store, options, records, gates: Mutex::default(), unreachable: Mutex::default() }
    }

    /// The images that were brought or used within `max_idle`, for the collector of garbage. The others are brought
    /// anew when they are wanted.
    pub fn in_use(&self, max_idle: Duration) -> Vec<(String, SnapshotId)> {
        self.records.in_use(max_idle)
    }

    /// Brings the image that `reference` names, as in a Dockerfile's `FROM`, into the store.
    pub async fn resolve(
        &self,
        reference: &str,
        credentials: Option<&Credentials>,
        log: &Log,
    ) -> Result<(SnapshotId, ImageConfig), BaseError> {
        let parsed = registry::parse(reference)?;
        let _hold = self.store.hold();
        let _gate = self.enter(&parsed.whole(), log).await;
        let (registry, reason) = match self.ask_registries(&parsed, credentials, log).await {
            Err(BaseError::Unreachable { registry, reason, .. }) => (registry, reason),
            done => return done,
        };
        let unreachable = BaseError::Unreachable {
            reference: reference.to_owned(),
            registry: registry.clone(),
            reason: reason.clone(),
        };
        if !self.options.bootstrap {
            return Err(unreachable);
        }
        let Some(wanted) = bootstrap::Wanted::of(&parsed) else {
            return Err(unreachable);
        };
        log(&format!(
            "{registry}: {reason}; bootstrapping {reference} from this machine's package archive instead"
        ));
        // Different references may stand for one release; whoever waited finds it made.
        let _turn = self.enter("a bootstrap", log).await;
        Ok(bootstrap::bring(&self.store, &self.records, &self.options, &wanted, log).await?)
    }

    /// Waits until nobody else is bringing the same image. Who comes second finds a record.
    async fn enter(&self, image: &str, log: &Log) -> tokio::sync::OwnedMutexGuard<()> {
        let gate = {
            let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
            // Gates that nobody holds or waits for are of no use any more.
            gates.retain(|_, gate| Arc::strong_count(gate) > 1);
            Arc::clone(gates.entry(image.to_owned()).or_default())
        };
        if let Ok(guard) = Arc::clone(&gate).try_lock_owned() {
            return guard;
        }
        log(&format!("waiting for another build that is at {image}"));
        gate.lock_owned().await
    }

    async fn ask_registries(
        &self,
        image: &registry::Reference,
        credentials: Option<&Credentials>,
        log: &Log,
    ) -> Result<(SnapshotId, ImageConfig), BaseError> {
        let mut last = None;
        for source in registry::sources(image, self.options.registry_mirror.as_deref())? {
            let known = match self.options.registries {
                true => self.known_unreachable(&source),
                false => Some("not asked, registries are switched off".to_owned()),
            };
            let result = match known {
                Some(reason) => Err(source.unreachable(&reason)),
                None => {
                    registry::pull(&self.store, &self.records, &self.options, &source, credentials, log).await
                }
            };
            match result {
                // A mirror need not have everything.
                Err(error @ (BaseError::Unreachable { .. } | BaseError::NotFound { .. })) => {
                    self.remember_unreachable(&source, &error);
                    if source.is_mirror {
                        log(&format!("{error}; asking {} itself", image.registry()));
                    }
                    last = Some(error);
                }
                done => return done,
            }
        }
        Err(last.unwrap_or_else(|| BaseError::BadReference {
            reference: image.whole(),
            reason: "it names no registry".to_owned(),
        }))
    }

    fn known_unreachable(&self, source: &registry::Source) -> Option<String> {
        let mut known = self.unreachable.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (until, _)| *until > Instant::now());
        known.get(source.host()).map(|(_, reason)| reason.clone())
    }

    fn remember_unreachable(&self, source: &registry::Source, error: &BaseError) {
        if let BaseError::Unreachable { reason, .. } = error {
            let mut known = self.unreachable.lock().unwrap_or_else(PoisonError::into_inner);
            known
                .entry(source.host().to_owned())
                .or_insert_with(|| (Instant::now() + self.options.unreachable_for, reason.clone()));
        }
    }
}
