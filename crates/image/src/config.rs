//! What an image says about how its commands run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The `PATH` of an image that sets none, as Docker gives it.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Settings of an image, kept as JSON beside its snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// Environment in the order in which it was set; each name is there once.
    pub env: Vec<(String, String)>,
    /// Absolute working directory; `/` if never set.
    pub workdir: String,
    /// Arguments before the command; empty if none.
    pub entrypoint: Vec<String>,
    /// Default command; empty if none.
    pub cmd: Vec<String>,
    /// What runs commands in shell form.
    pub shell: Vec<String>,
    /// `user`, `uid`, `user:group` or empty for root.
    pub user: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Version of the Python that the base image is known to have, for example `3.11.2`.
    pub python: Option<String>,
}

impl Default for ImageConfig {
    fn default() -> Self {
        Self {
            env: Vec::new(),
            workdir: "/".to_owned(),
            entrypoint: Vec::new(),
            cmd: Vec::new(),
            shell: vec!["/bin/sh".to_owned(), "-c".to_owned()],
            user: String::new(),
            labels: BTreeMap::new(),
            python: None,
        }
    }
}

/// An OCI or Docker image configuration that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OciConfigError {
    /// Not JSON, or fields of the wrong type.
    #[error("the image configuration is not valid: {0}")]
    Invalid(#[from] serde_json::Error),
    /// The image is for another kind of machine.
    #[error("the image is for {found}, this machine is {wanted}")]
    Platform {
        /// `os/architecture` of the image.
        found: String,
        /// `os/architecture` of this machine.
        wanted: String,
    },
}

impl ImageConfig {
    /// The value of an environment variable.
    pub fn get_env(&self, name: &str) -> Option<&str> {
        self.env.iter().find(|(existing, _)| existing == name).map(|(_, value)| value.as_str())
    }

    /// Sets an environment variable; one that exists keeps its place.
    pub fn set_env(&mut self, name: &str, value: &str) {
        match self.env.iter_mut().find(|(existing, _)| existing == name) {
            Some((_, existing)) => *existing = value.to_owned(),
            None => self.env.push((name.to_owned(), value.to_owned())),
        }
    }

    /// Goes to `path`, which counts from the present working directory unless it is absolute.
    pub fn enter(&mut self, path: &str) {
        self.workdir = join_clean(&self.workdir, path);
    }

    /// Reads the configuration of an OCI or Docker image. `wanted` is `(os, architecture)` in OCI's words.
    pub fn from_oci(json: &[u8], wanted: (&str, &str)) -> Result<Self, OciConfigError> {
        let image: oci::Image = serde_json::from_slice(json)?;
        if (image.os.as_str(), image.architecture.as_str()) != wanted {
            return Err(OciConfigError::Platform {
                found: format!("{}/{}", image.os, image.architecture),
                wanted: format!("{}/{}", wanted.0, wanted.1),
            });
        }
        let oci = image.config.unwrap_or_default();
        let mut config = Self::default();
        for variable in oci.env.unwrap_or_default() {
            let (name, value) = variable.split_once('=').unwrap_or((&variable, ""));
            config.set_env(name, value);
        }
        if config.get_env("PATH").is_none() {
            config.set_env("PATH", DEFAULT_PATH);
        }
        config.enter(&oci.working_dir);
        config.entrypoint = oci.entrypoint.unwrap_or_default();
        config.cmd = oci.cmd.unwrap_or_default();
        config.user = oci.user;
        config.labels = oci.labels.unwrap_or_default();
        if let Some(shell) = oci.shell.filter(|shell| !shell.is_empty()) {
            config.shell = shell;
        }
        config.python = config.get_env("PYTHON_VERSION").map(str::to_owned);
        Ok(config)
    }
}

/// Joins `path` to `base` and resolves `.` and `..` by their names alone; the result is absolute.
pub fn join_clean(base: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let base = if path.starts_with('/') { "" } else { base };
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The fields that matter of an image configuration file. Docker writes `null` for what is empty.
mod oci {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    #[derive(Deserialize)]
    pub(super) struct Image {
        pub(super) os: String,
        pub(super) architecture: String,
        pub(super) config: Option<Config>,
    }

    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "PascalCase")]
    pub(super) struct Config {
        pub(super) env: Option<Vec<String>>,
        pub(super) working_dir: String,
        pub(super) entrypoint: Option<Vec<String>>,
        pub(super) cmd: Option<Vec<String>>,
        pub(super) shell: Option<Vec<String>>,
        pub(super) user: String,
        pub(super) labels: Option<BTreeMap<String, String>>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_configuration_with_nulls_is_read() {
        let json = br#"{"os":"linux","architecture":"amd64","config":{"Env":["PATH=/bin","LANG=C.UTF-8","PYTHON_VERSION=3.11.10"],
            "Cmd":["python3"],"Entrypoint":null,"WorkingDir":"","User":"","Labels":null},"rootfs":{}}"#;
        let config = ImageConfig::from_oci(json, ("linux", "amd64")).unwrap();
        assert_eq!(config.get_env("LANG"), Some("C.UTF-8"));
        assert_eq!(config.workdir, "/");
        assert_eq!(config.cmd, ["python3"]);
        assert_eq!(config.python.as_deref(), Some("3.11.10"));
        let back: ImageConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(back, config);
    }

    #[test]
    fn image_for_another_architecture_is_refused() {
        let json = br#"{"os":"linux","architecture":"arm64"}"#;
        let error = ImageConfig::from_oci(json, ("linux", "amd64")).unwrap_err();
        assert_eq!(error.to_string(), "the image is for linux/arm64, this machine is linux/amd64");
    }

    #[test]
    fn workdir_is_joined_and_never_leaves_the_root() {
        assert_eq!(join_clean("/a", "b/../c/."), "/a/c");
        assert_eq!(join_clean("/a", "/b"), "/b");
        assert_eq!(join_clean("/a", "../../.."), "/");
    }
}
