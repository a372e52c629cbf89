//! A real client in a virtual environment, and the server that it speaks to.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::BenchError;
use crate::error::io_error;

/// With which client, on which server, as whom.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The interpreter of a virtual environment with the client.
    pub python: PathBuf,
    /// Where the server serves, without a slash at the end.
    pub server_url: String,
    /// Id of a token.
    pub token_id: String,
    /// Its secret.
    pub token_secret: String,
}

impl ClientOptions {
    /// The version of the client.
    pub(crate) fn version(&self) -> Result<String, BenchError> {
        let script = "import modal; print(modal.__version__)";
        let output = Command::new(&self.python)
            .args(["-c", script])
            .output()
            .map_err(io_error("run", &self.python))?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() || version.is_empty() {
            let written = String::from_utf8_lossy(&output.stderr);
            return Err(BenchError::NoClient {
                python: self.python.clone(),
                output: written.lines().last().unwrap_or("it printed no version").to_owned(),
            });
        }
        Ok(version)
    }

    /// The interpreter, about to run something in `dir` as a client of this server.
    pub(crate) fn command(&self, dir: &Path) -> Command {
        let mut command = Command::new(&self.python);
        command
            .current_dir(dir)
            .env("MODAL_SERVER_URL", &self.server_url)
            .env("MODAL_TOKEN_ID", &self.token_id)
            .env("MODAL_TOKEN_SECRET", &self.token_secret)
            // Settings of the user's own must not count.
            .env("MODAL_CONFIG_PATH", dir.join("no-settings.toml"))
            .env_remove("MODAL_ENVIRONMENT")
            .env_remove("MODAL_PROFILE");
        command
    }
}
