//! Why an edit was refused.

use crate::PathError;
use crate::tree::shown;

/// A version cannot be changed like this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// The path cannot be used.
    #[error(transparent)]
    Path(#[from] PathError),
    /// There is nothing at the path.
    #[error("there is nothing at `{path}`")]
    NotFound {
        /// The path.
        path: String,
    },
    /// There is a directory where something else is needed.
    #[error("`{path}` is a directory")]
    IsADirectory {
        /// The path.
        path: String,
    },
    /// A directory that was to be replaced has something in it.
    #[error("the directory `{path}` is not empty")]
    NotEmpty {
        /// The path.
        path: String,
    },
    /// A directory was to be put into itself.
    #[error("`{from}` cannot be put into itself, at `{to}`")]
    IntoItself {
        /// The directory.
        from: String,
        /// The place within it.
        to: String,
    },
    /// A name in the path cannot be one.
    #[error("`{path}` cannot be a path: {reason}")]
    InvalidName {
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl EditError {
    pub(super) fn not_found(path: &[u8]) -> EditError {
        EditError::NotFound { path: shown(path) }
    }

    pub(super) fn is_a_directory(path: &[u8]) -> EditError {
        EditError::IsADirectory { path: shown(path) }
    }

    pub(super) fn not_a_directory(path: &[u8], component: &[u8]) -> EditError {
        PathError::NotADirectory { path: shown(path), component: shown(component) }.into()
    }

    pub(super) fn not_empty(path: &[u8]) -> EditError {
        EditError::NotEmpty { path: shown(path) }
    }

    pub(super) fn into_itself(from: &[u8], to: &[u8]) -> EditError {
        EditError::IntoItself { from: shown(from), to: shown(to) }
    }

    pub(super) fn invalid_name(path: &[u8], reason: &'static str) -> EditError {
        EditError::InvalidName { path: shown(path), reason }
    }
}
