//! The local model hub: an endpoint that the `huggingface_hub` package talks to, over snapshots.
//!
//! A model is a snapshot with a name and revisions. [`import_model`] puts a directory of weights
//! into the content store and moves a branch of a repository to it; [`router`] answers what the
//! library asks for when `HF_ENDPOINT` leads here: model information, listings, and the files
//! themselves with entity tags, commit hashes and ranges. Which repositories there are is kept by
//! a [`ModelCatalog`]; [`DirectoryCatalog`] keeps them as files in the data directory.
//!
//! A model's files are ordinary objects: weights that are also in an image or on another
//! repository are on disk and in the page cache once.
//!
//! Absent on purpose: uploads through the library (commits, LFS batches), the Xet protocol,
//! datasets, spaces, and tags. Each gets an answer that the library reports as "not found" or
//! "not implemented". Removing a model removes its name; freeing content is not done here.

mod catalog;
mod git;
mod hash;
mod http;
mod import;
mod record;
mod repo;

pub use catalog::{CatalogError, DirectoryCatalog, ModelCatalog};
pub use hash::{CommitHash, GitId, HexHash, ParseHashError, Sha256};
pub use http::{HubOptions, HubState, ReadAccess, router};
pub use import::{ImportError, ImportOutcome, ImportProgress, ImportRequest, import_model};
pub use record::{Commit, FORMAT, ModelFile, ModelRecord};
pub use repo::{InvalidName, RepoId, RevisionName};
