//! The plain HTTP side of a Homeport: blobs, blocks and contents by signed URLs, metrics, health.
//!
//! A blob is a payload too large for a message: arguments, results, file bodies. It is a file on the
//! control plane's disk that lives until it is swept; what should stay goes into the content store.
//! Files of Volumes may arrive in blocks, and leave the content store in ranges.
//! Who may upload or download something is decided where its URL is signed, never here.

mod blobs;
mod blocks;
mod claim;
mod contents;
mod metrics;
mod receive;
mod routes;

pub use blobs::grant::GrantError;
pub use blobs::{
    BlobError, BlobId, BlobOptions, BlobStore, BlobTicket, CreateError, OpenError, Swept, Upload,
    UploadStyle, WallClock,
};
pub use blocks::{
    Assembled, BLOCK_BYTES, BlockError, BlockName, BlockPlan, BlockStore, BlockUpload, Filled, UploadKey,
    WrongBlockCount,
};
pub use contents::{ContentPart, ContentToken};
pub use metrics::Metrics;
pub use routes::{content_router, router};
