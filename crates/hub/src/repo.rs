//! Names of repositories and revisions, checked once where they enter.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::hash::CommitHash;

const MAX_REPO_LENGTH: usize = 96;
const MAX_REVISION_LENGTH: usize = 128;

/// A text that cannot name a repository or a revision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` cannot name a {what}: {reason}")]
pub struct InvalidName {
    /// The text, cut to its first 120 characters.
    pub text: String,
    /// `model` or `revision`.
    pub what: &'static str,
    /// The rule that it breaks.
    pub reason: &'static str,
}

/// The name of a model: `ORG/NAME`, or a bare `NAME` as old models have.
///
/// The rules are those of the client library: at most 96 characters out of `A-Z a-z 0-9 _ - .`;
/// each part begins and ends with a letter, digit or `_`; no `--`, no `..`, no ending `.git`.
/// As `--` is excluded, `ORG--NAME` is an unambiguous file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepoId(String);

impl RepoId {
    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the slash, if there is one.
    pub fn organisation(&self) -> Option<&str> {
        self.0.split_once('/').map(|(organisation, _)| organisation)
    }
}

impl FromStr for RepoId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<RepoId, InvalidName> {
        match repo_fault(text) {
            Some(reason) => Err(invalid(text, "model", reason)),
            None => Ok(RepoId(text.to_owned())),
        }
    }
}

fn repo_fault(text: &str) -> Option<&'static str> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if text.is_empty() || text.len() > MAX_REPO_LENGTH {
        return Some("1 to 96 characters are expected");
    }
    if text.bytes().filter(|byte| *byte == b'/').count() > 1 {
        return Some("`ORG/NAME` or `NAME` is expected");
    }
    for part in text.split('/') {
        let (Some(first), Some(last)) = (part.bytes().next(), part.bytes().last()) else {
            return Some("`ORG/NAME` or `NAME` is expected");
        };
        if !is_word(first) || !is_word(last) {
            return Some("each part begins and ends with a letter, a digit or `_`");
        }
        if !part.bytes().all(|byte| is_word(byte) || byte == b'-' || byte == b'.') {
            return Some("only ASCII letters, digits, `_`, `-` and `.` are allowed");
        }
    }
    if text.contains("--") || text.contains("..") {
        return Some("`--` and `..` are not allowed");
    }
    text.ends_with(".git").then_some("it may not end with `.git`")
}

/// The name of a branch, `main` if nothing else was asked for.
///
/// Letters, digits, `_`, `-`, `.` and, between parts, `/`. It is neither a commit hash nor one of
/// git's own `refs/…`, so that a revision in a request means one thing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RevisionName(String);

impl RevisionName {
    /// The branch that is meant where a request names none.
    pub const MAIN: &'static str = "main";

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for RevisionName {
    fn default() -> RevisionName {
        RevisionName(RevisionName::MAIN.to_owned())
    }
}

impl FromStr for RevisionName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<RevisionName, InvalidName> {
        match revision_fault(text) {
            Some(reason) => Err(invalid(text, "revision", reason)),
            None => Ok(RevisionName(text.to_owned())),
        }
    }
}

fn revision_fault(text: &str) -> Option<&'static str> {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if text.is_empty() || text.len() > MAX_REVISION_LENGTH {
        return Some("1 to 128 characters are expected");
    }
    for part in text.split('/') {
        if part.is_empty() || part.starts_with(['-', '.']) || part.ends_with('.') {
            return Some("a part between slashes is empty or begins or ends with `-` or `.`");
        }
        if !part.bytes().all(is_inner) || part.contains("..") || part.ends_with(".lock") {
            return Some("only ASCII letters, digits, `_`, `-`, `.` and `/` are allowed, no `..`");
        }
    }
    if text.parse::<CommitHash>().is_ok() {
        return Some("it reads as a commit hash");
    }
    (text == "HEAD" || text.starts_with("refs/")).then_some("git keeps this name for itself")
}

fn invalid(text: &str, what: &'static str, reason: &'static str) -> InvalidName {
    InvalidName { text: text.chars().take(120).collect(), what, reason }
}

/// Both names are text with a check at the entrance.
macro_rules! checked_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<$name, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

checked_text!(RepoId);
checked_text!(RevisionName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_real_models_are_accepted() {
        for name in ["gpt2", "sentence-transformers/all-MiniLM-L6-v2", "a/b.c_d", "0/1"] {
            assert_eq!(name.parse::<RepoId>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn names_that_the_library_refuses_are_refused() {
        let long = "a".repeat(97);
        for name in
            ["", "/", "a/", "/a", "a/b/c", "a--b", "a/..", "..", ".a", "a-", "a/b.git", "a b", "ä", &long]
        {
            assert!(name.parse::<RepoId>().is_err(), "{name}");
        }
    }

    #[test]
    fn revisions_are_branches_and_nothing_else() {
        for name in ["main", "v1.0", "feature/x", "2024-01-01"] {
            assert!(name.parse::<RevisionName>().is_ok(), "{name}");
        }
        let hash = "0123456789abcdef0123456789abcdef01234567";
        for name in ["", "/", "a//b", "../x", "a..b", "-x", "a.lock", "refs/pr/1", "HEAD", hash, "a\nb"] {
            assert!(name.parse::<RevisionName>().is_err(), "{name}");
        }
    }
}
