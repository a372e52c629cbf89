//! Layers made of commands.

use std::collections::BTreeMap;

use homeport_content::{Metadata, SnapshotId, Tree};
use homeport_image::plan::{self, BaseSource, StepInputs};
use homeport_image::{Action, CacheKey, ImageConfig, Step, dockerfile};
use homeport_meta::{QueryError, steps, uses};
use homeport_proto::client as pb;
use homeport_proto::worker as wp;

use super::{BuildError, Filled};
use crate::control::Control;
use crate::ids;
use crate::registry::millis;

struct State {
    snapshot: String,
    config: ImageConfig,
    key: CacheKey,
}

impl Control {
    /// Runs the commands of a layer, each found by its content or made.
    pub(super) async fn run_build_steps(
        &self,
        image_id: &str,
        request: &pb::ImageGetOrCreateRequest,
        image: &pb::Image,
    ) -> Result<Filled, BuildError> {
        let wrong = |error: &dyn std::fmt::Display| {
            BuildError::Request(format!("the image cannot be built: {error}"))
        };
        if !image.volume_mounts.is_empty() {
            return Err(BuildError::Request(
                "this Homeport runs the commands of an image without Volumes; use `run_function(…, volumes=…)`".into(),
            ));
        }
        let instructions = dockerfile::parse(&image.dockerfile_commands).map_err(|error| wrong(&error))?;
        let arguments: BTreeMap<String, String> = image.build_args.clone().into_iter().collect();
        let tags: Vec<&str> = image.base_images.iter().map(|base| base.docker_tag.as_str()).collect();
        let source = plan::base_of(&instructions, &tags, &arguments).map_err(|error| wrong(&error))?;
        let fresh = request.force_build || request.ignore_cache;
        let mut state = self.base(image_id, image, &source).await?;
        let steps =
            plan::plan(&instructions, source, &state.config, &arguments).map_err(|error| wrong(&error))?;
        let context = self.build_context(image)?;
        if image.gpu_config.as_ref().is_some_and(|gpu| gpu.r#type != 0 || !gpu.gpu_type.is_empty()) {
            self.say(image_id, "Build commands run without a GPU on this server.");
        }
        for step in &steps {
            self.run_build_step(image_id, step, &context, fresh, &mut state).await?;
        }
        Ok(Filled {
            snapshot: state.snapshot,
            config_json: serde_json::to_string(&state.config).map_err(|error| wrong(&error))?,
            builder_version: request.builder_version.clone(),
        })
    }

    async fn base(
        &self,
        image_id: &str,
        image: &pb::Image,
        source: &BaseSource,
    ) -> Result<State, BuildError> {
        let (snapshot, config_json) = match source {
            BaseSource::Parent { tag } => {
                let parent = self.parent(image)?.ok_or_else(|| {
                    BuildError::Request(format!("the image below, `{tag}`, was not sent along"))
                })?;
                (parent.snapshot.clone(), parent.config_json.clone())
            }
            BaseSource::Scratch => {
                let empty = self.store.put_tree(&Tree::new(Metadata::with_mode(0o755)))?;
                (empty.to_string(), "{}".to_owned())
            }
            BaseSource::Reference(reference) => self.pull(image_id, reference).await?,
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

    async fn pull(&self, image_id: &str, reference: &str) -> Result<(String, String), BuildError> {
        let key = format!("base {reference}");
        if let Some(step) = self.find_step(&key).await? {
            return Ok((step.snapshot, String::from_utf8_lossy(&step.config).into_owned()));
        }
        let pull = wp::PullBase { reference: reference.to_owned(), ..Default::default() };
        let text = format!("FROM {reference}");
        let result = self.worker_step(image_id, &text, wp::run_step::Step::PullBase(pull)).await?;
        let config = result.config_json.clone().into_bytes();
        let step = steps::Step { cache_key: key, snapshot: result.snapshot.clone(), config };
        steps::put(self.registry.meta(), &step).await?;
        Ok((result.snapshot, result.config_json))
    }

    async fn run_build_step(
        &self,
        image_id: &str,
        step: &Step,
        context: &SnapshotId,
        fresh: bool,
        state: &mut State,
    ) -> Result<(), BuildError> {
        let inputs = StepInputs { context: Some(*context), ..Default::default() };
        state.key = state.key.then(step, &inputs);
        state.config = step.config.clone();
        let order = match &step.action {
            Action::Base(_) | Action::Configure => {
                self.say(image_id, &step.announcement());
                return Ok(());
            }
            Action::Run { argv, build_env } => self.command(state, step, argv, build_env),
            Action::Copy { sources, destination } => self.copy(state, step, context, sources, destination),
            Action::MakeDirectory { path } => {
                let empty = self.store.put_tree(&Tree::new(Metadata::with_mode(0o755)))?;
                self.copy(state, step, &empty, &[".".to_owned()], path)
            }
        };
        let key = state.key.to_string();
        if !fresh && let Some(cached) = self.find_step(&key).await? {
            self.say(image_id, &format!("{} (cached)", step.announcement()));
            state.snapshot = cached.snapshot;
            return Ok(());
        }
        self.say(image_id, &step.announcement());
        let result = self.worker_step(image_id, &step.text, order).await?;
        let done = steps::Step { cache_key: key, snapshot: result.snapshot.clone(), config: Vec::new() };
        steps::put(self.registry.meta(), &done).await?;
        state.snapshot = result.snapshot;
        Ok(())
    }

    fn command(
        &self,
        state: &State,
        step: &Step,
        argv: &[String],
        build_env: &BTreeMap<String, String>,
    ) -> wp::run_step::Step {
        let mut env: std::collections::HashMap<String, String> = step.config.env.iter().cloned().collect();
        env.extend(build_env.clone());
        wp::run_step::Step::RunCommand(wp::RunCommand {
            layers: vec![state.snapshot.clone()],
            argv: argv.to_vec(),
            env,
            workdir: step.config.workdir.clone(),
            user: step.config.user.clone(),
            ..Default::default()
        })
    }

    fn copy(
        &self,
        state: &State,
        step: &Step,
        context: &SnapshotId,
        sources: &[String],
        destination: &str,
    ) -> wp::run_step::Step {
        wp::run_step::Step::CopyFiles(wp::CopyFiles {
            base: state.snapshot.clone(),
            context: context.to_string(),
            sources: sources.to_vec(),
            destination: destination.to_owned(),
            workdir: step.config.workdir.clone(),
        })
    }

    async fn worker_step(
        &self,
        image_id: &str,
        text: &str,
        step: wp::run_step::Step,
    ) -> Result<wp::StepResult, BuildError> {
        let step_id = ids::fresh(&*self.entropy, "bs");
        self.links
            .run_step(&step_id, step, Some(image_id.to_owned()))
            .await
            .map_err(|source| BuildError::Step { step: text.to_owned(), source })
    }
}
