//! Layers made of commands.

use std::collections::{BTreeMap, HashMap};

use homeport_content::{Metadata, SnapshotId, Tree};
use homeport_image::plan::{self, BaseSource, Copy, StepInputs};
use homeport_image::{Action, CacheKey, CopySource, ImageConfig, Step, dockerfile};
use homeport_meta::steps;
use homeport_proto::client as pb;
use homeport_proto::worker as wp;

use super::{BuildError, Filled, uv};
use crate::control::Control;
use crate::ids;
use crate::links::StepError;

/// What copies come from when they name nothing else, in words.
const CONTEXT: &str = "the build context";

/// A layer that is being built.
pub(super) struct Build<'a> {
    pub(super) image_id: &'a str,
    pub(super) image: &'a pb::Image,
    /// Nothing that was made before is good enough.
    pub(super) fresh: bool,
    context: SnapshotId,
    secrets: BTreeMap<String, String>,
    /// Stages that are done, by their number.
    stages: HashMap<usize, State>,
}

/// How far a stage is.
#[derive(Clone)]
pub(super) struct State {
    pub(super) snapshot: String,
    pub(super) config: ImageConfig,
    pub(super) key: CacheKey,
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
        let stages = plan::stages(&instructions, &tags, &arguments).map_err(|error| wrong(&error))?;
        let mut build = Build {
            image_id,
            image,
            fresh: request.force_build || request.ignore_cache,
            context: self.build_context(image)?,
            secrets: self.secret_environment(image)?,
            stages: HashMap::new(),
        };
        let login = self.registry_login(image)?;
        if image.gpu_config.as_ref().is_some_and(|gpu| gpu.r#type != 0 || !gpu.gpu_type.is_empty()) {
            self.say(image_id, "Build commands run without a GPU on this server.");
        }
        let mut last = None;
        for stage in &stages {
            let mut state = match &stage.base {
                BaseSource::Stage(index) => build.stage(*index)?.clone(),
                source => self.base(&build, source, login.as_ref()).await?,
            };
            for step in &stage.steps(&state.config).map_err(|error| wrong(&error))? {
                self.run_build_step(&build, step, &mut state).await?;
            }
            last = Some(stage.index);
            build.stages.insert(stage.index, state);
        }
        let Some(done) = last.and_then(|index| build.stages.remove(&index)) else {
            return Err(wrong(&plan::PlanError::NoBase));
        };
        Ok(Filled {
            snapshot: done.snapshot,
            config_json: serde_json::to_string(&done.config).map_err(|error| wrong(&error))?,
            builder_version: request.builder_version.clone(),
        })
    }

    async fn run_build_step(
        &self,
        build: &Build<'_>,
        step: &Step,
        state: &mut State,
    ) -> Result<(), BuildError> {
        let mut inputs = StepInputs::default();
        let order = match &step.action {
            Action::Base(_) | Action::Configure => None,
            Action::Run { argv, build_env, scratch } => {
                inputs.settings =
                    build.secrets.keys().map(|name| (format!("secret {name}"), String::new())).collect();
                Some(command(build, state, step, argv, build_env, scratch))
            }
            Action::Copy(copy) => {
                let (from, origin) = self.copied_from(build, state, copy).await?;
                inputs.context = Some(from);
                Some(copy_files(state, step, from, copy, origin))
            }
            Action::MakeDirectory { path } => {
                let empty = self.store.put_tree(&Tree::new(Metadata::with_mode(0o755)))?;
                Some(wp::run_step::Step::CopyFiles(wp::CopyFiles {
                    base: state.snapshot.clone(),
                    context: empty.to_string(),
                    sources: vec![".".to_owned()],
                    destination: path.clone(),
                    workdir: step.config.workdir.clone(),
                    ..Default::default()
                }))
            }
        };
        state.key = state.key.then(step, &inputs);
        state.config = step.config.clone();
        let Some(order) = order else {
            self.say(build.image_id, &step.announcement());
            return Ok(());
        };
        let key = state.key.to_string();
        if !build.fresh
            && let Some(cached) = self.find_step(&key).await?
        {
            self.say(build.image_id, &format!("{} (cached)", step.announcement()));
            state.snapshot = cached.snapshot;
            return Ok(());
        }
        self.say(build.image_id, &step.announcement());
        let result = self.worker_step(build, &step.text, order).await?;
        let done = steps::Step { cache_key: key, snapshot: result.snapshot.clone(), config: Vec::new() };
        steps::put(self.registry.meta(), &done).await?;
        state.snapshot = result.snapshot;
        Ok(())
    }

    /// What a copy takes its sources from, and what that is in words.
    async fn copied_from<'c>(
        &self,
        build: &Build<'_>,
        state: &State,
        copy: &'c Copy,
    ) -> Result<(SnapshotId, &'c str), BuildError> {
        let (source, name) = match &copy.from {
            CopySource::Context => return Ok((self.context_with(&build.context, &copy.inline)?, CONTEXT)),
            CopySource::Stage(index) => return Ok((build.stage(*index)?.id()?, "the stage")),
            CopySource::Image(source @ (BaseSource::Reference(name) | BaseSource::Parent { tag: name })) => {
                (source, name.as_str())
            }
            CopySource::Image(source) => (source, "the image"),
        };
        match (self.base(build, source, None).await, uv::requirement(name)) {
            (Err(error), Some(requirement)) if error.is_unreachable() => {
                Ok((self.uv_from_index(build, state, &requirement).await?, name))
            }
            (found, _) => Ok((found?.id()?, name)),
        }
    }

    pub(super) async fn worker_step(
        &self,
        build: &Build<'_>,
        text: &str,
        step: wp::run_step::Step,
    ) -> Result<wp::StepResult, BuildError> {
        let step_id = ids::fresh(&*self.entropy, "bs");
        self.links
            .run_step(&step_id, step, Some(build.image_id.to_owned()))
            .await
            .map_err(|source| BuildError::Step { step: text.to_owned(), source })
    }
}

impl Build<'_> {
    fn stage(&self, index: usize) -> Result<&State, BuildError> {
        self.stages
            .get(&index)
            .ok_or_else(|| BuildError::Request(format!("stage {index} of the image was not built")))
    }
}

impl State {
    fn id(&self) -> Result<SnapshotId, BuildError> {
        self.snapshot
            .parse()
            .map_err(|_| BuildError::Request(format!("`{}` is not a snapshot id", self.snapshot)))
    }
}

impl BuildError {
    fn is_unreachable(&self) -> bool {
        matches!(self, Self::Step { source: StepError::Failed { unreachable: true, .. }, .. })
    }
}

fn command(
    build: &Build<'_>,
    state: &State,
    step: &Step,
    argv: &[String],
    build_env: &BTreeMap<String, String>,
    scratch: &[String],
) -> wp::run_step::Step {
    let mut env: HashMap<String, String> = step.config.env.iter().cloned().collect();
    env.extend(build_env.clone());
    env.extend(build.secrets.clone());
    wp::run_step::Step::RunCommand(wp::RunCommand {
        layers: vec![state.snapshot.clone()],
        argv: argv.to_vec(),
        env,
        workdir: step.config.workdir.clone(),
        user: step.config.user.clone(),
        scratch: scratch.to_vec(),
        ..Default::default()
    })
}

fn copy_files(state: &State, step: &Step, from: SnapshotId, copy: &Copy, origin: &str) -> wp::run_step::Step {
    wp::run_step::Step::CopyFiles(wp::CopyFiles {
        base: state.snapshot.clone(),
        context: from.to_string(),
        sources: copy.sources.clone(),
        destination: copy.destination.clone(),
        workdir: step.config.workdir.clone(),
        owner: copy.owner.clone().unwrap_or_default(),
        mode: copy.mode,
        unpack: copy.unpack,
        origin: origin.to_owned(),
    })
}
