//! Image builds: one layer for each request of a client, found by its content or made.
//!
//! The client sends an image as a chain of layers and joins each of them. A layer is known by a
//! key over all that decides its content, and its id follows from the key: the same layer asked
//! for twice, at the same time or years apart, is one image and one build.

pub(crate) mod context;
mod function;
mod key;
mod steps;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use homeport_proto::client as pb;
use homeport_proto::record as rec;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use crate::clock::Seconds;
use crate::control::Control;
use crate::links::StepError;
use crate::registry::RegistryError;

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
}

impl From<homeport_meta::QueryError> for BuildError {
    fn from(error: homeport_meta::QueryError) -> Self {
        Self::Registry(error.into())
    }
}

/// A layer that was asked for and isn't there yet.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) request: pb::ImageGetOrCreateRequest,
    pub(crate) cache_key: String,
    started: bool,
    /// Set when the build failed.
    pub(crate) failure: Option<String>,
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
        registry.register("image_builds", "Image layers that were built, by result", self.counts.clone());
    }

    /// The image whose build runs this function.
    pub(crate) fn image_of(&self, function_id: &str) -> Option<String> {
        lock(&self.functions).get(function_id).cloned()
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
        let (id, cache_key) = key::layer(self, &request)?;
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
            let fresh = Pending { request, cache_key, started: false, failure: None };
            pending.insert(id.clone(), fresh);
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
        let (request, cache_key) = {
            let mut pending = lock(&self.builds.pending);
            let Some(pending) = pending.get_mut(image_id) else { return };
            if pending.started {
                return;
            }
            pending.started = true;
            (pending.request.clone(), pending.cache_key.clone())
        };
        let (control, image_id) = (self.clone(), image_id.to_owned());
        tokio::spawn(async move { control.build(&image_id, request, cache_key).await });
    }

    async fn build(&self, image_id: &str, request: pb::ImageGetOrCreateRequest, cache_key: String) {
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
                    id: image_id.to_owned(),
                    cache_key,
                    snapshot: filled.snapshot,
                    config_json: filled.config_json,
                    builder_version: filled.builder_version,
                    python: String::new(),
                };
                self.registry.put_image(image).await.map(drop).map_err(BuildError::from)
            }
            Err(error) => Err(error),
        };
        drop(hold);
        let result = if saved.is_ok() { "success" } else { "failure" };
        self.builds.counts.get_or_create(&Built { result }).inc();
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
        self.logs.close(image_id);
        lock(&self.builds.ended).insert(image_id.to_owned(), self.clock.now());
    }

    /// Drops what is left of builds that ended a while ago.
    pub(crate) fn forget_old_builds(&self) {
        let oldest = self.clock.now() - AFTERLIFE;
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

    /// The image below a layer.
    fn parent(&self, image: &pb::Image) -> Result<Option<Arc<rec::Image>>, BuildError> {
        let Some(base) = image.base_images.first() else { return Ok(None) };
        let found = self.registry.image(&base.image_id);
        found.map(Some).ok_or_else(|| {
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
