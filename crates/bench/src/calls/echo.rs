//! The bare server that is the floor.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::BenchError;
use crate::error::io_error;

const SOURCE: &str = include_str!("echo.py");

/// A process that answers every call at once. It ends with this value.
#[derive(Debug)]
pub(super) struct Echo {
    child: Child,
    port: u16,
}

impl Echo {
    /// Starts it with the messages of the client in this virtual environment.
    pub(super) fn start(python: &Path, dir: &Path) -> Result<Echo, BenchError> {
        let program = dir.join("echo.py");
        fs::write(&program, SOURCE).map_err(io_error("write", &program))?;
        let log = dir.join("echo-output");
        let output = File::create(&log).map_err(io_error("create", &log))?;
        let child = Command::new(python)
            .arg(&program)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(output)
            .spawn()
            .map_err(io_error("run", python))?;
        let mut echo = Echo { child, port: 0 };
        let mut line = String::new();
        if let Some(stdout) = echo.child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(io_error("hear from", &program))?;
        }
        echo.port = line.trim().parse().map_err(|_| {
            let output = fs::read_to_string(&log).unwrap_or_default();
            BenchError::NoEcho(output.lines().last().unwrap_or("it said no port").to_owned())
        })?;
        Ok(echo)
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
