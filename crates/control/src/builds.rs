//! Image builds: one layer for each request of a client, found by its content or made.
//!
//! The client sends an image as a chain of layers and joins each of them. A layer is known by a
//! key over all that decides its content, and its id follows from the key: the same layer asked
//! for twice, at the same time or years apart, is one image and one build.

mod base;
pub(crate) mod context;
mod function;
mod key;
mod secrets;
mod steps;
mod uv;
mod waiting;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use homeport_proto::client as pb;
use homeport_proto::record as rec;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::task::AbortHandle;

use crate::clock::Seconds;
use crate::control::Control;
use crate::links::StepError;
use crate::registry::RegistryError;
use crate::secrets::SecretError;
use key::Layer;

/// Seconds for which the log of a build, and why it failed, stay for those who still read it.
const AFTERLIFE: Seconds = 600.0;

/// Why a layer could not be built. The text is for the user.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The request is wrong.
    #[error("{0}")]
    Request(String),
    /// A step failed.
    #[error("{step}\n{source}")]
    Step {
        /// The step as it was written.
        step: String,
        /// What happened.
        source: StepError,
    },
    /// The function that should have filled the layer failed.
    #[error("{0}")]
    Function(String),
    /// The database failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The content store failed.
    #[error(transparent)]
    Store(#[from] homeport_store::StoreError),
    /// A secret can't be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl From<homeport_meta::QueryError> for BuildError {
    fn from(error: homeport_meta::QueryError) -> Self {
        Self::Registry(error.into())
    }
}

/// A layer that was asked for and isn't there yet.
#[derive(Debug)]
struct Pending {
    request: pb::ImageGetOrCreateRequest,
    layer: Layer,
    started: bool,
    /// Stops the work. Functions that fill a layer are not stopped by it.
    work: Option<AbortHandle>,
    /// How many wait for it.
    waiting: usize,
    /// When the last of them left.
    alone_since: Seconds,
    /// Set when the build failed.
    failure: Option<String>,
}

impl Pending {
    fn new(request: pb::ImageGetOrCreateRequest, layer: Layer) -> Self {
        Self { request, layer, started: false, work: None, waiting: 0, alone_since: 0.0, failure: None }
    }
}

/// The layers in work.
#[derive(Debug, Default)]
pub struct Builds {
    pending: Mutex<HashMap<String, Pending>>,
    /// Builder functions and the images that they fill.
    functions: Mutex<HashMap<String, String>>,
    /// When the builds that are over ended.
    ended: Mutex<HashMap<String, Seconds>>,
    counts: Family<Built, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Built {
    result: &'static str,
}

/// What is known of a layer.
pub(crate) enum LayerState {
    /// It is there.
    Ready(Arc<rec::Image>),
    /// It is being built, or will be.
    Pending,
    /// It could not be built; why.
    Failed(String),
    /// Nobody asked for it.
    Unknown,
}

impl Builds {
    /// Adds the count of builds to the metrics of the server.
    pub(crate) fn register_metrics(&self, registry: &mut prometheus_client::registry::Registry) {
        // What did not happen yet is shown as zero.
        for result in ["success", "failure", "cancelled"] {
            drop(self.counts.get_or_create(&Built { result }));
        }
        registry.register("image_builds", "Image layers that were built, by result", self.counts.clone());
    }

    /// The image whose build runs this function.
    pub(crate) fn image_of(&self, function_id: &str) -> Option<String> {
        lock(&self.functions).get(function_id).cloned()
    }

    fn count(&self, result: &'static str) {
        self.counts.get_or_create(&Built { result }).inc();
    }

    fn fail(&self, image_id: &str, text: String) {
        if let Some(pending) = lock(&self.pending).get_mut(image_id) {
            pending.failure = Some(text);
            // It can hold megabytes, and is asked for again by those who try once more.
            pending.request = pb::ImageGetOrCreateRequest::default();
        }
    }
}

impl Control {
    /// The id of the layer that the request describes; it is remembered for those who join.
    pub(crate) fn request_layer(&self, request: pb::ImageGetOrCreateRequest) -> Result<String, BuildError> {
        let layer = key::layer(self, &request)?;
        let is_plain = !(request.force_build || request.ignore_cache);
        if is_plain && let Some(forced) = self.registry.image_in_place_of(&layer.id) {
            return Ok(forced.id.clone());
        }
        let id = layer.id.clone();
        if self.registry.image(&id).is_some() {
            return Ok(id);
        }
        let mut pending = lock(&self.builds.pending);
        // Once more, under the lock: a build that ended meanwhile left the table after it was recorded.
        if self.registry.image(&id).is_some() {
            return Ok(id);
        }
        let current = pending.get(&id);
        if current.is_none_or(|current| current.failure.is_some()) {
            self.logs.reset(&id);
            lock(&self.builds.ended).remove(&id);
            pending.insert(id.clone(), Pending::new(request, layer));
        }
        Ok(id)
    }

    /// What is known of a layer.
    pub(crate) fn layer_state(&self, image_id: &str) -> LayerState {
        if let Some(image) = self.registry.image(image_id) {
            return LayerState::Ready(image);
        }
        match lock(&self.builds.pending).get(image_id) {
            None => LayerState::Unknown,
            Some(Pending { failure: Some(text), .. }) => LayerState::Failed(text.clone()),
            Some(_) => LayerState::Pending,
        }
    }

    /// Starts the build of a layer that waits for one.
    pub(crate) fn start_build(&self, image_id: &str) {
        let mut pending = lock(&self.builds.pending);
        let Some(pending) = pending.get_mut(image_id) else { return };
        if std::mem::replace(&mut pending.started, true) {
            return;
        }
        let (request, layer) = (pending.request.clone(), pending.layer.clone());
        let runs_function = request.image.as_ref().is_some_and(|image| image.build_function.is_some());
        let control = self.clone();
        let work = tokio::spawn(async move { control.build(request, layer).await });
        pending.alone_since = self.clock.now();
        pending.work = (!runs_function).then(|| work.abort_handle());
    }

    async fn build(&self, request: pb::ImageGetOrCreateRequest, layer: Layer) {
        let image_id = layer.id.as_str();
        let started = self.clock.now();
        // Until the image has its row.
        let hold = self.store.hold();
        let built = match request.image.as_ref() {
            Some(image) if image.build_function.is_some() => {
                self.run_build_function(image_id, &request, image).await
            }
            Some(image) => self.run_build_steps(image_id, &request, image).await,
            None => Err(BuildError::Request("the request holds no image".into())),
        };
        let saved = match built {
            Ok(filled) => {
                let image = rec::Image {
                    id: layer.id.clone(),
                    cache_key: layer.key.clone(),
                    snapshot: filled.snapshot,
                    config_json: filled.config_json,
                    builder_version: filled.builder_version,
                    in_place_of: layer.in_place_of.clone(),
                    built_at: self.clock.now(),
                    ..Default::default()
                };
                self.registry.put_image(image).await.map(drop).map_err(BuildError::from)
            }
            Err(error) => Err(error),
        };
        drop(hold);
        self.builds.count(if saved.is_ok() { "success" } else { "failure" });
        match saved {
            Ok(()) => {
                let seconds = self.clock.now() - started;
                self.say(image_id, &format!("Built image {image_id} in {seconds:.1} s"));
                lock(&self.builds.pending).remove(image_id);
            }
            Err(error) => {
                tracing::info!(image = image_id, %error, "image build failed");
                self.builds.fail(image_id, error.to_string());
            }
        }
        self.end_build(image_id);
    }

    fn end_build(&self, image_id: &str) {
        self.logs.close(image_id);
        lock(&self.builds.ended).insert(image_id.to_owned(), self.clock.now());
    }

    /// Gives up builds that nobody waits for, and drops what is left of those that ended a while ago.
    pub(crate) fn look_after_builds(&self) {
        let now = self.clock.now();
        self.give_up_builds(now);
        let oldest = now - AFTERLIFE;
        let gone: Vec<String> =
            lock(&self.builds.ended).extract_if(|_, at| *at < oldest).map(|(image_id, _)| image_id).collect();
        let mut pending = lock(&self.builds.pending);
        for image_id in gone {
            // Somebody tries once more.
            if pending.get(&image_id).is_some_and(|pending| pending.failure.is_none()) {
                continue;
            }
            pending.remove(&image_id);
            self.logs.forget(&image_id);
        }
    }

    fn say(&self, log_id: &str, text: &str) {
        self.logs.say(log_id, text, self.clock.now());
    }

    /// The image that a layer knows by the name `tag`.
    fn parent(&self, image: &pb::Image, tag: &str) -> Result<Arc<rec::Image>, BuildError> {
        let base =
            image.base_images.iter().find(|base| base.docker_tag == tag).ok_or_else(|| {
                BuildError::Request(format!("the image below, `{tag}`, was not sent along"))
            })?;
        self.registry.image(&base.image_id).ok_or_else(|| {
            BuildError::Request(format!(
                "the base image {} is not built on this server; build it first",
                base.image_id
            ))
        })
    }
}

/// What a build made.
struct Filled {
    snapshot: String,
    config_json: String,
    builder_version: String,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change leaves the tables whole, so a panic elsewhere doesn't spoil them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
