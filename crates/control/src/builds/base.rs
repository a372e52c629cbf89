//! What a stage stands on, and what else is copied from: images built before, and images of registries.

use homeport_content::{Metadata, SnapshotId, Tree};
use homeport_image::plan::BaseSource;
use homeport_image::{CacheKey, Credentials, ImageConfig};
use homeport_meta::{QueryError, steps, uses};
use homeport_proto::worker as wp;

use super::BuildError;
use super::steps::{Build, State};
use crate::control::Control;
use crate::registry::millis;

impl Control {
    /// The state that a build begins with on `source`, which is no stage.
    pub(super) async fn base(
        &self,
        build: &Build<'_>,
        source: &BaseSource,
        login: Option<&Credentials>,
    ) -> Result<State, BuildError> {
        let (snapshot, config_json) = match source {
            BaseSource::Parent { tag } => {
                let parent = self.parent(build.image, tag)?;
                (parent.snapshot.clone(), parent.config_json.clone())
            }
            BaseSource::Scratch => {
                let empty = self.store.put_tree(&Tree::new(Metadata::with_mode(0o755)))?;
                (empty.to_string(), "{}".to_owned())
            }
            BaseSource::Reference(reference) => self.pull(build, reference, login).await?,
            BaseSource::Stage(index) => {
                return Err(BuildError::Request(format!("stage {index} of the image was not built")));
            }
        };
        let config: ImageConfig = serde_json::from_str(&config_json).map_err(|error| {
            BuildError::Request(format!("the configuration of the base is damaged: {error}"))
        })?;
        let id: SnapshotId = snapshot
            .parse()
            .map_err(|_| BuildError::Request(format!("the base has no snapshot ({snapshot})")))?;
        let key = CacheKey::of_image(&id, &config);
        Ok(State { snapshot, config, key })
    }

    /// The result of a step, which stays from now on, if there is one.
    pub(crate) async fn find_step(&self, key: &str) -> Result<Option<steps::Step>, QueryError> {
        let found = uses::step(self.registry.meta(), key, millis(self.clock.now())).await?;
        let is_here =
            |step: &steps::Step| step.snapshot.parse().is_ok_and(|id| self.store.contains_tree(&id));
        Ok(found.filter(is_here))
    }

    async fn pull(
        &self,
        build: &Build<'_>,
        reference: &str,
        login: Option<&Credentials>,
    ) -> Result<(String, String), BuildError> {
        // What one needs a login for is not found by those without.
        let key = match login {
            None => format!("base {reference}"),
            Some(_) => format!("base {reference} with a login"),
        };
        if !build.fresh
            && let Some(step) = self.find_step(&key).await?
        {
            return Ok((step.snapshot, String::from_utf8_lossy(&step.config).into_owned()));
        }
        let mut pull = wp::PullBase { reference: reference.to_owned(), ..Default::default() };
        if let Some(Credentials { username, password }) = login.cloned() {
            (pull.username, pull.password) = (username, password);
        }
        let text = format!("FROM {reference}");
        let result = self.worker_step(build, &text, wp::run_step::Step::PullBase(pull)).await?;
        let config = result.config_json.clone().into_bytes();
        let step = steps::Step { cache_key: key, snapshot: result.snapshot.clone(), config };
        steps::put(self.registry.meta(), &step).await?;
        Ok((result.snapshot, result.config_json))
    }
}
