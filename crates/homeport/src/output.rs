//! What a command prints when it is done.

use std::io::{ErrorKind, Write};

use crate::failure::Hint;

/// Stdout did not take what was to be printed.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the output")]
pub(crate) struct OutputError(#[source] std::io::Error);

impl Hint for OutputError {
    fn hint(&self) -> Option<String> {
        None
    }
}

/// Prints text as it is. A reader that has seen enough, such as `head` or `grep -q`, is no error.
pub(crate) fn print(text: &str) -> Result<(), OutputError> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(OutputError(error)),
        _ => Ok(()),
    }
}
