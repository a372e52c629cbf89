//! A program that the client runs to its end, and the one result that it leaves.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;

use crate::BenchError;
use crate::client::ClientOptions;
use crate::error::io_error;

/// How long the client may take to end its app.
const END_PATIENCE: Duration = Duration::from_secs(30);
/// Of a failed client's output, so much is shown.
const SHOWN_OUTPUT: usize = 4000;

/// `modal run` on a program. The program writes its result as JSON to the file that the variable
/// `HOMEPORT_BENCH_RESULT` names.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    output: PathBuf,
    result: PathBuf,
}

impl Program {
    /// Starts the client on a program with this source and these flags, with all files in `dir`.
    /// The program's standard input is open until [`Program::finish`].
    pub(crate) fn start(
        client: &ClientOptions,
        dir: &Path,
        name: &str,
        source: &str,
        flags: &[String],
    ) -> Result<Program, BenchError> {
        let program = dir.join(format!("{name}.py"));
        fs::write(&program, source).map_err(io_error("write", &program))?;
        let output = dir.join("client-output");
        let result = dir.join("result.json");
        let log = File::create(&output).map_err(io_error("create", &output))?;
        let log_too = log.try_clone().map_err(io_error("open again", &output))?;
        let child = client
            .command(dir)
            .args(["-m", "modal", "run"])
            .arg(&program)
            .args(flags)
            .env("HOMEPORT_BENCH_RESULT", &result)
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(log_too)
            // Ctrl-C comes to it from here, once.
            .process_group(0)
            .spawn()
            .map_err(io_error("run", &client.python))?;
        Ok(Program { child, output, result })
    }

    /// What the program found out; `None` until it knows.
    pub(crate) fn result<T: DeserializeOwned>(&mut self) -> Result<Option<T>, BenchError> {
        if self.result.exists() {
            let text = fs::read(&self.result).map_err(io_error("read", &self.result))?;
            let result =
                serde_json::from_slice(&text).map_err(|error| io_error("understand", &self.result)(error))?;
            return Ok(Some(result));
        }
        match self.child.try_wait().map_err(BenchError::ClientLost)? {
            Some(status) => Err(self.failed(status)),
            None => Ok(None),
        }
    }

    /// Lets the program end, and its app with it.
    pub(crate) fn finish(mut self) -> Result<(), BenchError> {
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

impl Drop for Program {
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
