//! A real client in a virtual environment, and the server that it speaks to.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::BenchError;
use crate::error::io_error;

/// Of a failed client's output, so much is shown.
const SHOWN_OUTPUT: usize = 4000;

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

/// A client that runs a program. Its app ends with this value.
#[derive(Debug)]
pub(crate) struct ClientProcess {
    child: Child,
    output: PathBuf,
    patience: Duration,
}

impl ClientProcess {
    /// Starts it. What it writes is in the file `output`; it may take `patience` to end its app.
    pub(crate) fn spawn(
        mut command: Command,
        output: PathBuf,
        patience: Duration,
    ) -> Result<ClientProcess, BenchError> {
        let python = PathBuf::from(command.get_program());
        // Ctrl-C comes to it from here, once.
        let child = command.process_group(0).spawn().map_err(io_error("run", &python))?;
        Ok(ClientProcess { child, output, patience })
    }

    /// Its standard input, if that is a pipe; once.
    pub(crate) fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Its standard output, if that is a pipe; once.
    pub(crate) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    pub(crate) fn has_ended(&mut self) -> Result<bool, BenchError> {
        Ok(self.child.try_wait().map_err(BenchError::ClientLost)?.is_some())
    }

    /// Lets the program end, and its app with it.
    pub(crate) fn finish(mut self) -> Result<(), BenchError> {
        drop(self.child.stdin.take());
        match self.wait()? {
            Some(status) if status.success() => Ok(()),
            Some(_) => Err(self.failed()),
            None => Err(BenchError::ClientStuck(self.patience.as_secs())),
        }
    }

    /// What to say of it once it has failed. Waits for its end, and enforces that.
    pub(crate) fn failed(&mut self) -> BenchError {
        let _ = self.wait();
        let _ = self.child.kill();
        let status = match self.child.wait() {
            Ok(status) => status,
            Err(error) => return BenchError::ClientLost(error),
        };
        let written = fs::read(&self.output).unwrap_or_else(|error| error.to_string().into_bytes());
        let end = &written[written.len().saturating_sub(SHOWN_OUTPUT)..];
        BenchError::Client { status, output: String::from_utf8_lossy(end).into_owned() }
    }

    fn wait(&mut self) -> Result<Option<ExitStatus>, BenchError> {
        let begin = Instant::now();
        loop {
            let status = self.child.try_wait().map_err(BenchError::ClientLost)?;
            if status.is_some() || begin.elapsed() > self.patience {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for ClientProcess {
    /// The client's own end is the clean one: it stops the app. Force is for when it hangs.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let process = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(process) = process {
            let _ = kill_process(process, Signal::INT);
        }
        if !matches!(self.wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
