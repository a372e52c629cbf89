//! The tool `uv` where its registry can't be reached: newer clients copy it from an image that has nothing else.
//!
//! The package index has the same program, so that an image with a Python can get it from there.

use homeport_content::{SnapshotId, Tree};
use homeport_meta::steps;
use homeport_proto::worker as wp;

use super::BuildError;
use super::steps::{Build, State};
use crate::control::Control;

const IMAGE: &str = "ghcr.io/astral-sh/uv";
/// Where the package goes in the container that installs it.
const PLACE: &str = "/.homeport-uv";

/// The requirement that gives what is in the image `reference`, if that is an image of `uv` alone.
pub(super) fn requirement(reference: &str) -> Option<String> {
    match reference.strip_prefix(IMAGE)? {
        "" | ":latest" => Some("uv".to_owned()),
        tag => {
            let version = tag.strip_prefix(':')?;
            let plain =
                version.split('.').all(|part| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit()));
            // `0.8` is the newest of its series.
            let wanted =
                if version.split('.').count() < 3 { format!("{version}.*") } else { version.to_owned() };
            plain.then(|| format!("uv=={wanted}"))
        }
    }
}

impl Control {
    /// What the image of `uv` holds, installed by the Python of `state`.
    pub(super) async fn uv_from_index(
        &self,
        build: &Build<'_>,
        state: &State,
        requirement: &str,
    ) -> Result<SnapshotId, BuildError> {
        let key = format!("{requirement} from the package index on {}", state.snapshot);
        if !build.fresh
            && let Some(step) = self.find_step(&key).await?
            && let Ok(id) = step.snapshot.parse()
        {
            return Ok(id);
        }
        self.say(build.image_id, "The registry can't be reached: uv comes from the package index.");
        let argv =
            ["python", "-m", "pip", "install", "--disable-pip-version-check", "--no-deps", "--target", PLACE];
        let command = wp::RunCommand {
            layers: vec![state.snapshot.clone()],
            argv: argv.into_iter().chain([requirement]).map(str::to_owned).collect(),
            env: state.config.env.iter().cloned().collect(),
            workdir: "/".to_owned(),
            keep_only: vec![format!("{PLACE}/bin")],
            ..Default::default()
        };
        let text = format!("pip install {requirement}");
        let result = self.worker_step(build, &text, wp::run_step::Step::RunCommand(command)).await?;
        let damaged = || BuildError::Request(format!("`{text}` left no programs"));
        let installed = self.store.tree(&result.snapshot.parse().map_err(|_| damaged())?)?;
        let programs = installed.directory(format!("{PLACE}/bin").as_bytes()).ok_or_else(damaged)?;
        let tree = Tree { root: programs.clone(), leaves: installed.leaves.clone() };
        let id = self.store.put_tree(&tree)?;
        let step = steps::Step { cache_key: key, snapshot: id.to_string(), config: Vec::new() };
        steps::put(self.registry.meta(), &step).await?;
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_images_of_uv_alone_are_the_package() {
        for (reference, expected) in [
            ("ghcr.io/astral-sh/uv:latest", Some("uv")),
            ("ghcr.io/astral-sh/uv", Some("uv")),
            ("ghcr.io/astral-sh/uv:0.5.1", Some("uv==0.5.1")),
            ("ghcr.io/astral-sh/uv:0.8", Some("uv==0.8.*")),
            ("ghcr.io/astral-sh/uv:debian-slim", None),
            ("ghcr.io/astral-sh/uv:", None),
            ("ghcr.io/astral-sh/uvx:1.0.0", None),
            ("ghcr.io/other/uv:latest", None),
        ] {
            assert_eq!(requirement(reference).as_deref(), expected, "{reference}");
        }
    }
}
