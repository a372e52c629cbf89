//! The build logic of images: what a list of Dockerfile commands means, and where base images come from.
//!
//! [`dockerfile`] reads the commands, [`plan`] turns them into steps with cache keys, [`copy`] carries
//! out `COPY` on trees, [`archive`] reads what `ADD` unpacks, [`base`] brings base images into the store. Commands are not run here and nothing
//! is mounted: whoever has containers carries out [`plan::Action::Run`].

pub mod archive;
pub mod base;
pub mod config;
pub mod copy;
pub mod dockerfile;
pub mod plan;

pub use base::{BaseError, BaseOptions, Bases, Credentials, Log};
pub use config::ImageConfig;
pub use copy::{CopyError, CopyRequest, copy};
pub use dockerfile::DockerfileError;
pub use plan::{Action, BaseSource, CacheKey, CopySource, PlanError, Step, StepInputs};
