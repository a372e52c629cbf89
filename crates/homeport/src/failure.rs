//! How a failure is said: what happened, why, and what can be done.

use std::error::Error;
use std::fmt::Display;
use std::io::Write;

/// What ends a command.
#[derive(Debug)]
pub(crate) struct Failure {
    error: Box<dyn Error>,
    hint: Option<String>,
}

/// An error that may know what can be done about it.
pub(crate) trait Hint: Error {
    /// An instruction, or none where the message says it all.
    fn hint(&self) -> Option<String>;
}

impl<E: Hint + 'static> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure { hint: error.hint(), error: Box::new(error) }
    }
}

impl Failure {
    /// Writes it to stderr.
    pub(crate) fn print(&self) {
        let hint = self.hint.as_ref().map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
        // Where stderr is closed there is nobody to tell.
        let _ = write!(std::io::stderr(), "error: {}\n{hint}", chain(self.error.as_ref()));
    }
}

/// A message with its causes in one line. A cause that repeats its effect's words is left out.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = single_line(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = single_line(error);
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

fn single_line(message: &(impl Display + ?Sized)) -> String {
    message.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open\n  the door")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_follow_their_effect_in_one_line() {
        let error = Outer(std::io::Error::other("no key"));
        assert_eq!(chain(&error), "cannot open the door: no key");
    }
}
