//! Reads Dockerfile commands into [`Instruction`]s.
//!
//! The syntax is Docker's: continuation lines, comments, heredocs, flags, shell and exec forms. What is
//! not carried out (`ONBUILD`, remote `ADD`, some flags) is refused by name. Variables are not expanded
//! here, since their values are known only when the base is.

mod flags;
mod heredoc;
mod instruction;
mod lines;
mod read;
mod words;

use thiserror::Error;

pub use instruction::{CommandLine, CopyInstruction, InlineFile, Instruction};
pub use words::{WordFault, expand, expand_text};

/// An instruction with the place where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Number of its first line, from 1, counted over all commands.
    pub line: usize,
    /// The instruction on one line, continuation lines joined, for the build log.
    pub text: String,
    /// What it says.
    pub instruction: Instruction,
}

/// A Dockerfile command that can't be read or isn't supported.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("Dockerfile line {line}, `{text}`: {fault}")]
pub struct DockerfileError {
    /// Number of the line, from 1, counted over all commands.
    pub line: usize,
    /// The instruction as it was written, cut to a readable length.
    pub text: String,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a Dockerfile command.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// The first word is no instruction.
    #[error("unknown instruction `{0}`")]
    UnknownInstruction(String),
    /// An instruction or a form of it that exists in Docker but not here.
    #[error("{0} is not supported yet")]
    Unsupported(String),
    /// The instruction's arguments don't fit it.
    #[error("{0}")]
    Arguments(String),
    /// A quote or a `${` isn't closed, or a variable is required but not set.
    #[error("{0}")]
    Word(#[from] words::WordFault),
}

impl DockerfileError {
    /// An error at an instruction.
    pub(crate) fn at(line: usize, text: &str, fault: impl Into<Fault>) -> Self {
        const READABLE: usize = 120;
        let mut shown: String = text.chars().take(READABLE).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        Self { line, text: shown, fault: fault.into() }
    }
}

/// Reads commands, each of which may hold several lines or end inside an instruction that the next
/// one continues, as if they stood in one file.
pub fn parse<S: AsRef<str>>(commands: &[S]) -> Result<Vec<Located>, DockerfileError> {
    lines::logical_lines(commands)?
        .into_iter()
        .map(|line| {
            let instruction = read::instruction(&line)
                .map_err(|fault| DockerfileError::at(line.number, &line.text, fault))?;
            Ok(Located { line: line.number, text: line.text, instruction })
        })
        .collect()
}

#[cfg(test)]
mod tests;
