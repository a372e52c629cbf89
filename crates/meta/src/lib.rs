//! Names and facts of a Homeport in SQL: tokens, apps and what they are made of, images, build steps,
//! calls, models, Volumes, secrets.
//!
//! Each table has a module of plain functions that take a [`Meta`]; each function is one statement or one
//! transaction. Columns exist only where a lookup needs them: the rest of a row is a `record`, bytes
//! whose meaning belongs to the caller, so this crate knows nothing of the wire or of scheduling.
//!
//! The default database is a SQLite file in the data directory. The statements keep to what SQLite and
//! PostgreSQL share. File contents, logs and secrets in the clear are never here.

pub mod apps;
pub mod blocks;
pub mod calls;
pub mod deployments;
pub mod environments;
pub mod files;
pub mod idempotency;
pub mod images;
pub mod inputs;
pub mod models;
pub mod objects;
pub mod outputs;
pub mod secrets;
pub mod steps;
pub mod tokens;
pub mod unknown_methods;
pub mod uses;
pub mod volume_takes;
pub mod volume_versions;
pub mod volumes;

mod database;
mod lock;

pub use database::{ChangeMark, Meta, OpenError, QueryError, Result};
pub use lock::{DataDirLock, LockError};
