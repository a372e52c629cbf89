//! The plain HTTP side of a Homeport: blobs by signed URLs, metrics, health.
//!
//! A blob is a payload too large for a message: arguments, results, file bodies. It is a file on the
//! control plane's disk that lives until it is swept; what should stay goes into the content store.
//! Who may upload or download one is decided where its URL is signed, never here.

mod blobs;
mod metrics;
mod routes;

pub use blobs::grant::GrantError;
pub use blobs::{
    BlobError, BlobId, BlobOptions, BlobStore, BlobTicket, CreateError, OpenError, Swept, Upload,
    UploadStyle, WallClock,
};
pub use metrics::Metrics;
pub use routes::router;
