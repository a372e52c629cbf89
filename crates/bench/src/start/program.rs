//! The program whose containers are timed.

use std::fmt::Write as _;

use serde::Deserialize;

const SOURCE: &str = include_str!("program.py");

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

/// A program with so many functions, each of which gets a container of its own when it is called.
pub(super) fn source(functions: usize) -> String {
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
