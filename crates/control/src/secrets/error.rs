//! What can go wrong with secrets, in sentences for users. None of them holds a value.

use std::path::PathBuf;

use homeport_meta::QueryError;
use tonic::Status;

/// Why a secret could not be made, found or opened.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// No secret has this id, or not any more.
    #[error("the secret {0} does not exist on this server; was it deleted?")]
    Missing(String),
    /// No secret has this name.
    #[error(
        "there is no secret `{name}` in environment `{environment}`: make it with `modal secret create {name} KEY=VALUE`"
    )]
    Unknown {
        /// The name.
        name: String,
        /// Where it was looked for.
        environment: String,
    },
    /// A secret lacks keys that its user requires.
    #[error("the secret `{name}` lacks {keys}, which the program requires")]
    LacksKeys {
        /// The secret.
        name: String,
        /// The keys, for people.
        keys: String,
    },
    /// The name is taken.
    #[error(
        "a secret `{name}` exists in environment `{environment}`: overwrite it with `--force`, or choose another name"
    )]
    Exists {
        /// The name.
        name: String,
        /// Where.
        environment: String,
    },
    /// The name can't be one.
    #[error("`{0}` is no name for a secret: letters, digits, `-`, `_` and `.`, at most 64 of them")]
    Name(String),
    /// A variable can't be one.
    #[error("the variable `{key}` cannot be in a secret: {reason}")]
    Variable {
        /// Its name.
        key: String,
        /// Why not.
        reason: &'static str,
    },
    /// The key file is gone although something is sealed with it.
    #[error(
        "the secrets of this server cannot be read: their key {} is missing. Put the file back; without it the secrets \
         are lost: delete them and create them again",
        path.display()
    )]
    KeyLost {
        /// Where the key should be.
        path: PathBuf,
    },
    /// The secret was sealed with another key, or something changed it in the database.
    #[error(
        "the secret {id} cannot be opened with the key {}: it was sealed with another one, or its row is damaged. Put \
         the right key back, or create the secret again",
        path.display()
    )]
    Sealed {
        /// The secret.
        id: String,
        /// The key in use.
        path: PathBuf,
    },
    /// The key file can't be read, written or understood.
    #[error("the key of the secrets, {}, {what}", path.display())]
    KeyFile {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A row holds something that isn't its record.
    #[error("the database row of the secret {0} is damaged")]
    Record(String),
    /// The database failed.
    #[error("the server's database failed: {0}")]
    Query(#[from] QueryError),
}

impl From<SecretError> for Status {
    fn from(error: SecretError) -> Self {
        let text = error.to_string();
        match error {
            SecretError::Missing(_) | SecretError::Unknown { .. } | SecretError::LacksKeys { .. } => {
                Self::not_found(text)
            }
            SecretError::Exists { .. } => Self::already_exists(text),
            SecretError::Name(_) | SecretError::Variable { .. } => Self::invalid_argument(text),
            SecretError::KeyLost { .. } | SecretError::Sealed { .. } | SecretError::KeyFile { .. } => {
                Self::failed_precondition(text)
            }
            SecretError::Record(_) => Self::data_loss(text),
            // Clients try again after this one.
            SecretError::Query(_) => Self::unavailable(text),
        }
    }
}
