//! The program that calls, and the conversation with it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::BenchError;
use crate::client::{ClientOptions, ClientProcess};
use crate::error::io_error;
use crate::interruption::Interruption;

const SOURCE: &str = include_str!("program.py");
/// Until an answer has to come: the first one waits for an image that may have to be built.
const PATIENCE: Duration = Duration::from_secs(1800);
/// How long the client may take to end its app.
const END_PATIENCE: Duration = Duration::from_secs(60);
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

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
    // Goes before the process, which ends when it hears no more.
    commands: Option<ChildStdin>,
    process: ClientProcess,
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
        let mut command = client.command(dir);
        command.arg(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut process = ClientProcess::spawn(command, output.clone(), END_PATIENCE)?;
        let (sender, answers) = channel();
        let (commands, stdout) = (process.take_stdin(), process.take_stdout());
        let reader = move || {
            for line in stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines()) {
                if !line.is_ok_and(|line| sender.send(line).is_ok()) {
                    return;
                }
            }
        };
        std::thread::Builder::new().spawn(reader).map_err(BenchError::Thread)?;
        let mut driver = Driver { commands, process, answers, output };
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
            return Err(self.process.failed());
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
                Err(RecvTimeoutError::Disconnected) => return Err(self.process.failed()),
                Err(RecvTimeoutError::Timeout) if begin.elapsed() > PATIENCE => {
                    return Err(BenchError::ClientStuck(PATIENCE.as_secs()));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Lets the program end, and its app with it.
    pub(super) fn finish(self) -> Result<(), BenchError> {
        drop(self.commands);
        self.process.finish()
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
