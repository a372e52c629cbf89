//! The program that calls, and the conversation with it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::BenchError;
use crate::client::ClientOptions;
use crate::error::io_error;
use crate::interruption::Interruption;

const SOURCE: &str = include_str!("program.py");
/// Until an answer has to come: the first one waits for an image that may have to be built.
const PATIENCE: Duration = Duration::from_secs(1800);
/// How long the client may take to end its app.
const END_PATIENCE: Duration = Duration::from_secs(60);
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);
/// Of a failed program's output, so much is shown.
const SHOWN_OUTPUT: usize = 4000;

/// What the program shall do.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub(super) enum Command {
    /// Call until so many containers have answered.
    Warm { function: &'static str, containers: usize },
    /// Call a function that does nothing, one call after the other.
    Remote { function: &'static str, count: usize },
    /// Map a function that does nothing over so many inputs.
    Map { function: &'static str, inputs: usize },
    /// Call a function with so many bytes.
    Payload { bytes: u64 },
    /// Upload so many bytes by plain HTTP.
    Upload { bytes: u64 },
    /// Put inputs into the queue of a function that takes none.
    Queue { inputs: usize },
}

#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    seconds: Vec<f64>,
}

/// A client that runs the program.
#[derive(Debug)]
pub(super) struct Driver {
    child: Child,
    commands: Option<ChildStdin>,
    answers: Receiver<String>,
    output: PathBuf,
}

impl Driver {
    /// Starts the program and waits until its app runs. Its files are in `dir`, under `name`.
    pub(super) fn start(
        client: &ClientOptions,
        dir: &Path,
        name: &str,
        interruption: &Interruption,
    ) -> Result<Driver, BenchError> {
        let program = dir.join("homeport_bench_calls.py");
        fs::write(&program, SOURCE).map_err(io_error("write", &program))?;
        let output = dir.join(format!("{name}-output"));
        let log = File::create(&output).map_err(io_error("create", &output))?;
        let mut child = client
            .command(dir)
            .arg(&program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // Ctrl-C comes to it from here, once.
            .process_group(0)
            .spawn()
            .map_err(io_error("run", &client.python))?;
        let (sender, answers) = channel();
        let (commands, stdout) = (child.stdin.take(), child.stdout.take());
        let reader = move || {
            for line in stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines()) {
                if !line.is_ok_and(|line| sender.send(line).is_ok()) {
                    return;
                }
            }
        };
        std::thread::Builder::new().spawn(reader).map_err(BenchError::Thread)?;
        let mut driver = Driver { child, commands, answers, output };
        driver.answer(interruption)?;
        Ok(driver)
    }

    /// Has it do something. The answer is how long that took, in seconds.
    pub(super) fn ask(
        &mut self,
        command: &Command,
        interruption: &Interruption,
    ) -> Result<Vec<f64>, BenchError> {
        let line = serde_json::to_string(command).unwrap_or_default() + "\n";
        let sent = self.commands.as_mut().map(|commands| commands.write_all(line.as_bytes()));
        if !matches!(sent, Some(Ok(()))) {
            return Err(self.failed());
        }
        let line = self.answer(interruption)?;
        let answer: Answer =
            serde_json::from_str(&line).map_err(|error| io_error("understand", &self.output)(error))?;
        Ok(answer.seconds)
    }

    fn answer(&mut self, interruption: &Interruption) -> Result<String, BenchError> {
        let begin = Instant::now();
        loop {
            interruption.check()?;
            match self.answers.recv_timeout(BETWEEN_LOOKS) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Disconnected) => return Err(self.failed()),
                Err(RecvTimeoutError::Timeout) if begin.elapsed() > PATIENCE => {
                    return Err(BenchError::ClientStuck(PATIENCE.as_secs()));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Lets the program end, and its app with it.
    pub(super) fn finish(mut self) -> Result<(), BenchError> {
        drop(self.commands.take());
        if !self.wait(END_PATIENCE)? {
            return Err(BenchError::ClientStuck(END_PATIENCE.as_secs()));
        }
        match self.child.wait().map_err(BenchError::ClientLost)? {
            status if status.success() => Ok(()),
            _ => Err(self.failed()),
        }
    }

    /// Whether it ended in time.
    fn wait(&mut self, patience: Duration) -> Result<bool, BenchError> {
        let begin = Instant::now();
        while begin.elapsed() < patience {
            if self.child.try_wait().map_err(BenchError::ClientLost)?.is_some() {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(false)
    }

    fn failed(&mut self) -> BenchError {
        let _ = self.wait(END_PATIENCE);
        let _ = self.child.kill();
        let status = match self.child.wait() {
            Ok(status) => status,
            Err(error) => return BenchError::ClientLost(error),
        };
        let written = fs::read(&self.output).unwrap_or_default();
        let end = &written[written.len().saturating_sub(SHOWN_OUTPUT)..];
        BenchError::Client { status, output: String::from_utf8_lossy(end).into_owned() }
    }
}

impl Drop for Driver {
    /// The client's own end is the clean one: it stops the app. Force is for when it hangs.
    fn drop(&mut self) {
        drop(self.commands.take());
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let process = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(process) = process {
            let _ = kill_process(process, Signal::INT);
        }
        if !matches!(self.wait(END_PATIENCE), Ok(true)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_what_the_program_reads() {
        let text = |command| serde_json::to_string(&command).unwrap();
        let remote = Command::Remote { function: "one", count: 3 };
        assert_eq!(text(remote), r#"{"do":"remote","function":"one","count":3}"#);
        let map = Command::Map { function: "one", inputs: 2 };
        assert_eq!(text(map), r#"{"do":"map","function":"one","inputs":2}"#);
        for name in ["warm", "remote", "map", "payload", "upload", "queue"] {
            assert!(SOURCE.contains(&format!("\ndef {name}(")), "{name}");
        }
    }
}
