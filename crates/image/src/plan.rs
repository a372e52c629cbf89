//! From instructions to the steps of a build.
//!
//! A plan is made in two phases, because what a `$PATH` in a command means depends on the base:
//! [`stages`] says which stages there are and what each stands on, [`Stage::steps`] with that base's
//! configuration says the rest. Stages that the last one doesn't need are left out.

mod arguments;
mod key;
mod stage;
mod stages;

use std::collections::BTreeMap;

use thiserror::Error;

use crate::config::ImageConfig;
use crate::dockerfile::{DockerfileError, Fault, Located};

pub use key::{CacheKey, StepInputs};
pub use stages::{Stage, stages};

/// What a stage stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BaseSource {
    /// An image built before, under the name that `FROM` uses for it.
    Parent {
        /// The name, for example `base`.
        tag: String,
    },
    /// An image that [`crate::base`] resolves.
    Reference(String),
    /// An earlier stage, by its [`Stage::index`].
    Stage(usize),
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
        /// Absolute paths of directories that are empty at the start and not kept.
        scratch: Vec<String>,
    },
    /// Copies files, with the configuration's working directory; see [`crate::copy`].
    Copy(Copy),
    /// Creates a directory if it isn't there. The same as copying `.` of an empty context to it.
    MakeDirectory {
        /// Absolute path.
        path: String,
    },
    /// Changes nothing but the configuration.
    Configure,
}

/// What to copy where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Where the sources are.
    pub from: CopySource,
    /// Paths or patterns.
    pub sources: Vec<String>,
    /// Path in the image.
    pub destination: String,
    /// `user[:group]` that the copies belong to, in place of root.
    pub owner: Option<String>,
    /// Mode of the copies, in place of their own.
    pub mode: Option<u32>,
    /// Files by name that are among the sources without being in the context.
    pub inline: Vec<(String, String)>,
    /// Archives give their contents.
    pub unpack: bool,
}

/// Where a copy takes its sources from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopySource {
    /// The build context.
    Context,
    /// An earlier stage, by its [`Stage::index`].
    Stage(usize),
    /// Another image.
    Image(BaseSource),
}

/// A step of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its number, from 1, over all stages.
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

fn refusal(located: &Located, message: &str) -> DockerfileError {
    DockerfileError::at(located.line, &located.text, Fault::Arguments(message.to_owned()))
}

#[cfg(test)]
mod tests;
