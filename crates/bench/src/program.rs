//! A program that the client runs to its end, and the one result that it leaves.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::BenchError;
use crate::client::{ClientOptions, ClientProcess};
use crate::error::io_error;

/// How long the client may take to end its app.
const END_PATIENCE: Duration = Duration::from_secs(30);

/// `modal run` on a program. The program writes its result as JSON to the file that the variable
/// `HOMEPORT_BENCH_RESULT` names.
#[derive(Debug)]
pub(crate) struct Program {
    process: ClientProcess,
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
        let mut command = client.command(dir);
        command.args(["-m", "modal", "run"]).arg(&program).args(flags);
        command.env("HOMEPORT_BENCH_RESULT", &result);
        command.stdin(Stdio::piped()).stdout(log).stderr(log_too);
        let process = ClientProcess::spawn(command, output, END_PATIENCE)?;
        Ok(Program { process, result })
    }

    /// What the program found out; `None` until it knows.
    pub(crate) fn result<T: DeserializeOwned>(&mut self) -> Result<Option<T>, BenchError> {
        if self.result.exists() {
            let text = fs::read(&self.result).map_err(io_error("read", &self.result))?;
            let result =
                serde_json::from_slice(&text).map_err(|error| io_error("understand", &self.result)(error))?;
            return Ok(Some(result));
        }
        if self.process.has_ended()? { Err(self.process.failed()) } else { Ok(None) }
    }

    /// Lets the program end, and its app with it.
    pub(crate) fn finish(self) -> Result<(), BenchError> {
        self.process.finish()
    }
}
