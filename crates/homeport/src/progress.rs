//! A line on the terminal that says how far a long command is. Nothing where stderr is no terminal.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(200);

/// The line.
#[derive(Debug)]
pub(crate) struct ProgressLine {
    terminal: bool,
    shown: Option<Instant>,
}

impl ProgressLine {
    pub(crate) fn new() -> ProgressLine {
        ProgressLine { terminal: std::io::stderr().is_terminal(), shown: None }
    }

    /// Replaces the line, unless it was shown only a moment ago.
    pub(crate) fn show(&mut self, text: impl FnOnce() -> String) {
        if !self.terminal || self.shown.is_some_and(|shown| shown.elapsed() < INTERVAL) {
            return;
        }
        self.shown = Some(Instant::now());
        // A progress line that can't be shown is no reason to stop.
        let _ = write!(std::io::stderr(), "\r\x1b[K{}", text());
    }

    /// Takes the line away, for what comes after.
    pub(crate) fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.clear();
    }
}
