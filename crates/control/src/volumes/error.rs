//! What can go wrong with Volumes.

use homeport_content::InvalidTree;
use homeport_meta::QueryError;
use homeport_store::StoreError;
use tonic::Status;

/// Why something could not be done with a Volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// There is none of this id.
    #[error("the Volume {0} does not exist on this server; it may have been deleted")]
    Missing(String),
    /// There is none of this name.
    #[error(
        "no Volume `{name}` exists in environment `{environment}`; create it first, for example with `create_if_missing=True`"
    )]
    Unknown {
        /// The name.
        name: String,
        /// Where it was looked for.
        environment: String,
    },
    /// The name is given away.
    #[error(
        "a Volume `{name}` exists already in environment `{environment}`; choose another name or delete it"
    )]
    Exists {
        /// The name.
        name: String,
        /// Where.
        environment: String,
    },
    /// The name is none.
    #[error(
        "`{0}` is no name for a Volume: names have 1 to 64 letters, digits, dashes, periods and underscores"
    )]
    Name(String),
    /// The tag is none.
    #[error(
        "`{0}` is no tag: tags have 1 to 64 letters, digits, dashes, periods and underscores, and one that is no digit"
    )]
    Tag(String),
    /// There is no such version, or not any more.
    #[error(
        "the Volume {volume} has no version `{version}`; `homeport volume log {volume}` lists those that are kept"
    )]
    NoVersion {
        /// Name or id.
        volume: String,
        /// Number or tag as it was asked for.
        version: String,
    },
    /// A path that is wanted is in neither of two versions.
    #[error("`{path}` is neither in version {version} of the Volume {volume} nor in the newest one")]
    NoPath {
        /// Name or id.
        volume: String,
        /// The version that was looked at.
        version: u64,
        /// The path.
        path: String,
    },
    /// It would be larger than it may be.
    #[error(
        "the Volume {volume} may hold {quota} bytes and would hold {bytes}; remove files, or raise its quota with \
         `homeport volume configure {volume} --quota`"
    )]
    Full {
        /// Name or id.
        volume: String,
        /// What it may hold.
        quota: u64,
        /// What it would hold.
        bytes: u64,
    },
    /// A change of a container came before one that it was made after.
    #[error(
        "change {sequence} of task {task_id} came before change {expected}, on which it rests; it will be repeated"
    )]
    OutOfOrder {
        /// The task.
        task_id: String,
        /// What came.
        sequence: u64,
        /// What should have come.
        expected: u64,
    },
    /// Somebody else wrote to the database of this server.
    #[error(
        "version {number} of the Volume {volume} was written by another process on the same data directory"
    )]
    Overtaken {
        /// Name or id.
        volume: String,
        /// The number that is given away.
        number: u64,
    },
    /// A row or a report is not what it should be.
    #[error("the record of Volume {id} is damaged: {reason}")]
    Record {
        /// The Volume.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The change itself is none that can be stored.
    #[error("the change cannot be stored: {0}")]
    Invalid(#[from] InvalidTree),
    /// The database failed.
    #[error("the server's database failed: {0}")]
    Query(#[from] QueryError),
    /// The content store failed.
    #[error("the content store failed: {0}")]
    Store(#[from] StoreError),
    /// The work was broken off.
    #[error("the server broke off its work on the Volume: {0}")]
    Lost(tokio::task::JoinError),
}

impl VolumeError {
    /// Whether it failed for want of space, which no repetition changes.
    pub fn is_full(&self) -> bool {
        let Self::Store(error) = self else { return matches!(self, Self::Full { .. }) };
        let kind = error.io().map(std::io::Error::kind);
        matches!(kind, Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded))
    }
}

impl From<VolumeError> for Status {
    fn from(error: VolumeError) -> Self {
        let text = error.to_string();
        match error {
            _ if error.is_full() => Self::resource_exhausted(text),
            VolumeError::Missing(_) | VolumeError::Unknown { .. } | VolumeError::NoVersion { .. } => {
                Self::not_found(text)
            }
            VolumeError::NoPath { .. } => Self::not_found(text),
            VolumeError::Exists { .. } => Self::already_exists(text),
            VolumeError::Name(_) | VolumeError::Tag(_) => Self::invalid_argument(text),
            VolumeError::Record { .. } => Self::data_loss(text),
            VolumeError::Invalid(_) | VolumeError::Full { .. } => Self::failed_precondition(text),
            // Clients try again after this one.
            VolumeError::OutOfOrder { .. }
            | VolumeError::Overtaken { .. }
            | VolumeError::Query(_)
            | VolumeError::Store(_)
            | VolumeError::Lost(_) => Self::unavailable(text),
        }
    }
}

/// Why an edit of a Volume came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum EditError<E> {
    /// The editor gave up.
    #[error("{0}")]
    Refused(E),
    /// The Volume could not be changed.
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

impl<E: Into<Status>> From<EditError<E>> for Status {
    fn from(error: EditError<E>) -> Self {
        match error {
            EditError::Refused(error) => error.into(),
            EditError::Volume(error) => error.into(),
        }
    }
}
