//! From instructions to the steps of a build.
//!
//! A plan is made in two phases, because what a `$PATH` in a command means depends on the base:
//! [`base_of`] says what the image stands on, [`plan`] with that base's configuration says the rest.

mod key;

use std::collections::BTreeMap;

use thiserror::Error;

use crate::config::{DEFAULT_PATH, ImageConfig};
use crate::dockerfile::{CommandLine, DockerfileError, Fault, Instruction, Located, expand};

pub use key::{CacheKey, StepInputs};

/// What an image stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BaseSource {
    /// An image built before, under the name that `FROM` uses for it.
    Parent {
        /// The name, for example `base`.
        tag: String,
    },
    /// An image that [`crate::base`] resolves.
    Reference(String),
    /// `FROM scratch`: nothing.
    Scratch,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Starts from this.
    Base(BaseSource),
    /// Runs a command with the step's configuration and keeps what it wrote.
    Run {
        /// The whole argument vector, the shell included.
        argv: Vec<String>,
        /// Environment on top of the configuration's, from `ARG`. Not kept in the image.
        build_env: BTreeMap<String, String>,
    },
    /// Copies from the build context, with the configuration's working directory; see [`crate::copy`].
    Copy {
        /// Paths or patterns in the context.
        sources: Vec<String>,
        /// Path in the image.
        destination: String,
    },
    /// Creates a directory if it isn't there. The same as copying `.` of an empty context to it.
    MakeDirectory {
        /// Absolute path.
        path: String,
    },
    /// Changes nothing but the configuration.
    Configure,
}

/// A step of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its number, from 1.
    pub number: usize,
    /// How many steps there are.
    pub total: usize,
    /// The instruction as written, on one line.
    pub text: String,
    /// What to do.
    pub action: Action,
    /// The configuration in force for the action, and the image's after it.
    pub config: ImageConfig,
}

impl Step {
    /// The line that announces the step in the build log.
    pub fn announcement(&self) -> String {
        format!("=> Step {}/{}: {}", self.number, self.total, self.text)
    }
}

/// Commands that make no image.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    /// One command is wrong.
    #[error(transparent)]
    Command(#[from] DockerfileError),
    /// No `FROM`.
    #[error("the image has no FROM command, so it stands on nothing; begin with FROM and an image")]
    NoBase,
}

/// What `FROM` names. `parents` are the names under which built images are at hand, `build_args` give
/// values to `ARG`s.
pub fn base_of(
    instructions: &[Located],
    parents: &[&str],
    build_args: &BTreeMap<String, String>,
) -> Result<BaseSource, PlanError> {
    let mut arguments = BTreeMap::new();
    for located in instructions {
        match &located.instruction {
            Instruction::Arg(names) => {
                declare(located, names, &mut arguments, build_args, &ImageConfig::default())?
            }
            Instruction::From { image, platform } => {
                refuse_foreign_platform(located, platform.as_deref())?;
                let image = expand(image, &|name| arguments.get(name).cloned())
                    .map_err(|fault| DockerfileError::at(located.line, &located.text, fault))?;
                return match image.as_str() {
                    "" => {
                        Err(refusal(located, "FROM names no image once its variables have their values")
                            .into())
                    }
                    "scratch" => Ok(BaseSource::Scratch),
                    tag if parents.contains(&tag) => Ok(BaseSource::Parent { tag: image }),
                    _ => Ok(BaseSource::Reference(image)),
                };
            }
            _ => return Err(refusal(located, "only ARG may stand before FROM").into()),
        }
    }
    Err(PlanError::NoBase)
}

/// The steps of a build on `base`, whose configuration is `base_config`. The first one is the base.
pub fn plan(
    instructions: &[Located],
    base: BaseSource,
    base_config: &ImageConfig,
    build_args: &BTreeMap<String, String>,
) -> Result<Vec<Step>, PlanError> {
    let from = instructions
        .iter()
        .position(|located| matches!(located.instruction, Instruction::From { .. }))
        .ok_or(PlanError::NoBase)?;
    let mut config = base_config.clone();
    if config.get_env("PATH").is_none() {
        config.set_env("PATH", DEFAULT_PATH);
    }
    let stage = &instructions[from..];
    let mut state = Stage { config, arguments: BTreeMap::new(), build_args, command_is_ours: false };
    let mut steps = Vec::with_capacity(stage.len());
    let mut base = Some(base);
    for located in stage {
        let action = match (&located.instruction, base.take()) {
            (Instruction::From { .. }, Some(base)) => Action::Base(base),
            _ => state.advance(located)?,
        };
        steps.push(Step {
            number: steps.len() + 1,
            total: stage.len(),
            text: located.text.clone(),
            action,
            config: state.config.clone(),
        });
    }
    Ok(steps)
}

/// What instructions before this one have settled.
struct Stage<'a> {
    config: ImageConfig,
    arguments: BTreeMap<String, String>,
    build_args: &'a BTreeMap<String, String>,
    /// Whether `CMD` was set by this list of commands: then `ENTRYPOINT` doesn't reset it.
    command_is_ours: bool,
}

impl Stage<'_> {
    fn advance(&mut self, located: &Located) -> Result<Action, DockerfileError> {
        match &located.instruction {
            Instruction::From { .. } => {
                return Err(DockerfileError::at(
                    located.line,
                    &located.text,
                    Fault::Unsupported("a second FROM (a build in several stages)".to_owned()),
                ));
            }
            Instruction::Run(command) => return Ok(self.run(command)),
            Instruction::Copy { sources, destination } => return self.copy(located, sources, destination),
            Instruction::Workdir(path) => {
                let path = self.expanded(located, path)?;
                if path.is_empty() {
                    return Err(refusal(located, "WORKDIR is empty once its variables have their values"));
                }
                self.config.enter(&path);
                return Ok(Action::MakeDirectory { path: self.config.workdir.clone() });
            }
            Instruction::Env(pairs) => {
                // All values see the environment as it was before this instruction.
                for (name, value) in self.expanded_pairs(located, pairs)? {
                    self.config.set_env(&name, &value);
                }
            }
            Instruction::Label(pairs) => {
                let pairs = self.expanded_pairs(located, pairs)?;
                self.config.labels.extend(pairs);
            }
            Instruction::Arg(names) => {
                declare(located, names, &mut self.arguments, self.build_args, &self.config)?
            }
            Instruction::User(user) => self.config.user = self.expanded(located, user)?,
            Instruction::Shell(argv) => self.config.shell = argv.clone(),
            Instruction::Cmd(command) => {
                self.config.cmd = command.argv(&self.config.shell);
                self.command_is_ours = true;
            }
            Instruction::Entrypoint(command) => {
                self.config.entrypoint = command.argv(&self.config.shell);
                if !self.command_is_ours {
                    self.config.cmd.clear();
                }
            }
            Instruction::Noted { .. } => {}
        }
        Ok(Action::Configure)
    }

    fn run(&self, command: &CommandLine) -> Action {
        let build_env = self
            .arguments
            .iter()
            .filter(|(name, _)| self.config.get_env(name).is_none())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        Action::Run { argv: command.argv(&self.config.shell), build_env }
    }

    fn copy(
        &self,
        located: &Located,
        sources: &[String],
        destination: &str,
    ) -> Result<Action, DockerfileError> {
        let sources =
            sources.iter().map(|source| self.expanded(located, source)).collect::<Result<_, _>>()?;
        let destination = self.expanded(located, destination)?;
        if destination.is_empty() {
            return Err(refusal(located, "the destination is empty once its variables have their values"));
        }
        Ok(Action::Copy { sources, destination })
    }

    fn expanded(&self, located: &Located, word: &str) -> Result<String, DockerfileError> {
        let lookup = |name: &str| {
            self.config.get_env(name).map(str::to_owned).or_else(|| self.arguments.get(name).cloned())
        };
        expand(word, &lookup).map_err(|fault| DockerfileError::at(located.line, &located.text, fault))
    }

    fn expanded_pairs(
        &self,
        located: &Located,
        pairs: &[(String, String)],
    ) -> Result<Vec<(String, String)>, DockerfileError> {
        pairs
            .iter()
            .map(|(name, value)| Ok((self.expanded(located, name)?, self.expanded(located, value)?)))
            .collect()
    }
}

fn declare(
    located: &Located,
    names: &[(String, Option<String>)],
    arguments: &mut BTreeMap<String, String>,
    build_args: &BTreeMap<String, String>,
    config: &ImageConfig,
) -> Result<(), DockerfileError> {
    for (name, default) in names {
        let value = match (build_args.get(name), default) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(default)) => {
                let lookup = |name: &str| {
                    config.get_env(name).map(str::to_owned).or_else(|| arguments.get(name).cloned())
                };
                let value = expand(default, &lookup)
                    .map_err(|fault| DockerfileError::at(located.line, &located.text, fault))?;
                Some(value)
            }
            (None, None) => None,
        };
        if let Some(value) = value {
            arguments.insert(name.clone(), value);
        }
    }
    Ok(())
}

fn refuse_foreign_platform(located: &Located, platform: Option<&str>) -> Result<(), DockerfileError> {
    let ours = format!("linux/{}", crate::base::architecture());
    match platform {
        Some(platform) if platform != ours => Err(DockerfileError::at(
            located.line,
            &located.text,
            Fault::Unsupported(format!("the platform {platform} on this machine ({ours})")),
        )),
        _ => Ok(()),
    }
}

fn refusal(located: &Located, message: &str) -> DockerfileError {
    DockerfileError::at(located.line, &located.text, Fault::Arguments(message.to_owned()))
}

#[cfg(test)]
mod tests;
