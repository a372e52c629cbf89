//! The program whose containers are timed, and the client that runs it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use super::StartOptions;
use crate::BenchError;
use crate::error::io_error;

const SOURCE: &str = include_str!("program.py");
/// How long the client may take to end its app.
const END_PATIENCE: Duration = Duration::from_secs(30);
/// Of a failed client's output, so much is shown.
const SHOWN_OUTPUT: usize = 4000;

/// What the program says of one function. Times are seconds since the epoch.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Visit {
    pub(super) function_id: String,
    /// When the caller called.
    pub(super) asked: f64,
    /// When the caller had the answer.
    pub(super) answered: f64,
    /// When the first line of the program ran in the container.
    pub(super) first_line: f64,
    /// Seconds of `python -I -c pass` in the container, from fork to exit.
    pub(super) interpreter: f64,
    /// The interpreter's path in the container.
    pub(super) executable: String,
}

/// The client, running the program.
#[derive(Debug)]
pub(super) struct Client {
    child: Child,
    output: PathBuf,
    result: PathBuf,
}

/// A program with so many functions, each of which gets a container of its own when it is called.
fn source(functions: usize) -> String {
    let mut text = SOURCE.to_owned();
    for number in 0..functions {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n\n@app.function(image=image)\ndef start_{number}(measure):\n    \
             return interpreter() if measure else begun()\n\n\nFUNCTIONS.append(start_{number})\n"
        );
    }
    text
}

impl Client {
    /// Starts the client on a program with `functions` functions, with all its files in `dir`.
    pub(super) fn start(options: &StartOptions, dir: &Path, functions: usize) -> Result<Client, BenchError> {
        let program = dir.join("cold_starts.py");
        fs::write(&program, source(functions)).map_err(io_error("write", &program))?;
        let output = dir.join("client-output");
        let result = dir.join("visits.json");
        let log = File::create(&output).map_err(io_error("create", &output))?;
        let log_too = log.try_clone().map_err(io_error("open again", &output))?;
        let child = Command::new(&options.python)
            .args(["-m", "modal", "run"])
            .arg(&program)
            .current_dir(dir)
            .env("MODAL_SERVER_URL", &options.server_url)
            .env("MODAL_TOKEN_ID", &options.token_id)
            .env("MODAL_TOKEN_SECRET", &options.token_secret)
            // Settings of the user's own must not count.
            .env("MODAL_CONFIG_PATH", dir.join("no-settings.toml"))
            .env_remove("MODAL_ENVIRONMENT")
            .env_remove("MODAL_PROFILE")
            .env("HOMEPORT_BENCH_RESULT", &result)
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(log_too)
            // Ctrl-C comes to it from here, once.
            .process_group(0)
            .spawn()
            .map_err(io_error("run", &options.python))?;
        Ok(Client { child, output, result })
    }

    /// What the program found out; `None` until it has called all functions.
    pub(super) fn visits(&mut self) -> Result<Option<Vec<Visit>>, BenchError> {
        if self.result.exists() {
            let text = fs::read(&self.result).map_err(io_error("read", &self.result))?;
            let visits =
                serde_json::from_slice(&text).map_err(|error| io_error("understand", &self.result)(error))?;
            return Ok(Some(visits));
        }
        match self.child.try_wait().map_err(BenchError::ClientLost)? {
            Some(status) => Err(self.failed(status)),
            None => Ok(None),
        }
    }

    /// Lets the program end, and its app with it.
    pub(super) fn finish(mut self) -> Result<(), BenchError> {
        drop(self.child.stdin.take());
        let status = self.wait(END_PATIENCE)?;
        match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(self.failed(status)),
            None => Err(BenchError::ClientStuck(END_PATIENCE.as_secs())),
        }
    }

    fn wait(&mut self, patience: Duration) -> Result<Option<ExitStatus>, BenchError> {
        let begin = Instant::now();
        loop {
            let status = self.child.try_wait().map_err(BenchError::ClientLost)?;
            if status.is_some() || begin.elapsed() > patience {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn failed(&self, status: ExitStatus) -> BenchError {
        let mut output = Vec::new();
        let read = File::open(&self.output).and_then(|mut file| file.read_to_end(&mut output));
        if let Err(error) = read {
            output = error.to_string().into_bytes();
        }
        let end = &output[output.len().saturating_sub(SHOWN_OUTPUT)..];
        BenchError::Client { status, output: String::from_utf8_lossy(end).into_owned() }
    }
}

impl Drop for Client {
    /// The client's own end is the clean one: it stops the app. Force is for when it hangs.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let process = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(process) = process {
            let _ = kill_process(process, Signal::INT);
        }
        if !matches!(self.wait(END_PATIENCE), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_function_is_defined_and_listed() {
        let text = source(3);
        for number in 0..3 {
            assert!(text.contains(&format!("def start_{number}(measure):")));
            assert!(text.contains(&format!("FUNCTIONS.append(start_{number})")));
        }
        assert!(!text.contains("start_3"));
    }
}
