//! What can be wrong with what is in a store.

use std::path::PathBuf;

use homeport_content::Digest;

use crate::hold::Root;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The bytes under a name are not those that the name is of.
    #[error("{what} is damaged: the bytes of its file have the digest {found}")]
    Altered {
        /// The name.
        what: Root,
        /// The digest of the bytes that are there.
        found: Digest,
    },
    /// The file under a name is shorter or longer than it should be.
    #[error("{what} is damaged: its file has {found} bytes instead of {expected}")]
    WrongSize {
        /// The name.
        what: Root,
        /// What trees say.
        expected: u64,
        /// Bytes of the file.
        found: u64,
    },
    /// The file cannot be read.
    #[error("{what} cannot be read: {reason}")]
    Unreadable {
        /// The name.
        what: Root,
        /// What the system said.
        reason: String,
    },
    /// The bytes are right, and no tree or delta that this version understands.
    #[error("{what} cannot be understood by this version: {reason}")]
    Undecodable {
        /// The name.
        what: Root,
        /// What is wrong with it.
        reason: String,
    },
    /// It is named, and not there.
    #[error("{what} is missing; {named_by} names it")]
    Missing {
        /// The name.
        what: Root,
        /// What refers to it, for people.
        named_by: String,
    },
    /// Mode, owner or attributes of an object's file are not plain.
    #[error("the file of {what} has a mode, an owner or attributes of its own")]
    Metadata {
        /// The name.
        what: Root,
    },
    /// A file that nobody put there.
    #[error("`{}` is no part of the store", .0.display())]
    Stray(PathBuf),
    /// Another account of the content says something else.
    #[error("{0}")]
    Account(String),
}

/// A fault, and what was done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The fault.
    pub fault: Fault,
    /// What was done; `None` if nothing was.
    pub mended: Option<Mended>,
}

/// What was done about a fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Mended {
    /// A good copy took its place.
    #[error("a good copy of `{}` is in its place", .0.display())]
    Copied(PathBuf),
    /// It is out of the way, and missing now.
    #[error("it was put aside as `{}`, so that nobody takes it for what it was", .0.display())]
    PutAside(PathBuf),
    /// Mode, owner and attributes are plain now.
    #[error("they are plain now")]
    MadePlain,
    /// Another account was put right.
    #[error("{0}")]
    Corrected(String),
}

impl Mended {
    /// Whether all is well again.
    pub fn is_whole(&self) -> bool {
        !matches!(self, Mended::PutAside(_))
    }
}
