//! One stage: its instructions become steps, with the configuration that each of them finds.

use super::arguments::{self, Values};
use super::stages::Stage;
use super::{Action, Copy, CopySource, Step, refusal};
use crate::config::{DEFAULT_PATH, ImageConfig, join_clean};
use crate::dockerfile::{
    CommandLine, CopyInstruction, DockerfileError, Instruction, Located, WordFault, expand, expand_text,
};

/// Replaces variables by what the second argument says of them.
type Expand = fn(&str, &dyn Fn(&str) -> Option<String>) -> Result<String, WordFault>;

/// What instructions before this one have settled.
pub(super) struct Walk<'s> {
    stage: &'s Stage<'s>,
    config: ImageConfig,
    arguments: Values,
    /// Whether `CMD` was set by this list of commands: then `ENTRYPOINT` doesn't reset it.
    command_is_ours: bool,
}

impl<'s> Walk<'s> {
    pub(super) fn new(stage: &'s Stage<'s>, base: &ImageConfig) -> Self {
        let mut config = base.clone();
        if config.get_env("PATH").is_none() {
            config.set_env("PATH", DEFAULT_PATH);
        }
        Self { stage, config, arguments: Values::new(), command_is_ours: false }
    }

    pub(super) fn steps(mut self) -> Result<Vec<Step>, DockerfileError> {
        let stage = self.stage;
        let mut steps = Vec::with_capacity(stage.instructions.len());
        for located in stage.instructions {
            let action = self.advance(located)?;
            steps.push(Step {
                number: stage.before + steps.len() + 1,
                total: stage.total,
                text: located.text.clone(),
                action,
                config: self.config.clone(),
            });
        }
        Ok(steps)
    }

    fn advance(&mut self, located: &Located) -> Result<Action, DockerfileError> {
        match &located.instruction {
            Instruction::From { .. } => return Ok(Action::Base(self.stage.base.clone())),
            Instruction::Run { command, scratch } => return self.run(located, command, scratch),
            Instruction::Copy(copy) => return self.copy(located, copy),
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
                let Stage { given, outside, .. } = self.stage;
                arguments::declare(located, names, &mut self.arguments, given, outside, &self.config)?;
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

    fn run(
        &self,
        located: &Located,
        command: &CommandLine,
        scratch: &[String],
    ) -> Result<Action, DockerfileError> {
        let build_env = self
            .arguments
            .iter()
            .filter(|(name, _)| self.config.get_env(name).is_none())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let scratch = scratch
            .iter()
            .map(|path| Ok(join_clean("/", &self.expanded(located, path)?)))
            .collect::<Result<_, DockerfileError>>()?;
        Ok(Action::Run { argv: command.argv(&self.config.shell), build_env, scratch })
    }

    fn copy(&self, located: &Located, copy: &CopyInstruction) -> Result<Action, DockerfileError> {
        let inlined = |source: &String| copy.inline.iter().any(|file| file.name == *source);
        let sources = copy
            .sources
            .iter()
            .map(|source| if inlined(source) { Ok(source.clone()) } else { self.expanded(located, source) })
            .collect::<Result<_, _>>()?;
        let destination = self.expanded(located, &copy.destination)?;
        if destination.is_empty() {
            return Err(refusal(located, "the destination is empty once its variables have their values"));
        }
        let inline = copy
            .inline
            .iter()
            .map(|file| {
                let text = match file.expand {
                    true => self.with_variables(located, &file.text, expand_text)?,
                    false => file.text.clone(),
                };
                Ok((file.name.clone(), text))
            })
            .collect::<Result<_, DockerfileError>>()?;
        let known = |from: &String| self.stage.sources.iter().find(|(name, _)| name == from);
        let from = match &copy.from {
            None => CopySource::Context,
            Some(from) => match known(from) {
                Some((_, source)) => source.clone(),
                None => return Err(refusal(located, "--from names nothing")),
            },
        };
        let owner = copy.owner.as_ref().map(|owner| self.expanded(located, owner)).transpose()?;
        let (mode, unpack) = (copy.mode, copy.unpack);
        Ok(Action::Copy(Copy { from, sources, destination, owner, mode, inline, unpack }))
    }

    fn expanded(&self, located: &Located, word: &str) -> Result<String, DockerfileError> {
        self.with_variables(located, word, expand)
    }

    fn with_variables(
        &self,
        located: &Located,
        text: &str,
        expand: Expand,
    ) -> Result<String, DockerfileError> {
        let lookup = |name: &str| {
            self.config.get_env(name).map(str::to_owned).or_else(|| self.arguments.get(name).cloned())
        };
        expand(text, &lookup).map_err(|fault| DockerfileError::at(located.line, &located.text, fault))
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
