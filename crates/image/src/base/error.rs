use std::path::PathBuf;

use homeport_store::StoreError;
use thiserror::Error;

use super::bootstrap::BootstrapError;
use super::layer::LayerError;
use crate::config::OciConfigError;

/// Why there is no base image.
#[derive(Debug, Error)]
pub enum BaseError {
    /// The reference isn't one.
    #[error(
        "`{reference}` is not an image reference: {reason}; write it as in `python:3.11-slim` or `ghcr.io/org/image:tag`"
    )]
    BadReference {
        /// As written.
        reference: String,
        /// What is wrong.
        reason: String,
    },
    /// The configured mirror isn't a URL.
    #[error("the registry mirror `{0}` is not of the form http://HOST:PORT or https://HOST:PORT")]
    BadMirror(String),
    /// The registry doesn't answer.
    #[error(
        "the image {reference} can't be had: its registry {registry} can't be reached ({reason}). \
         Check the network, or set a registry mirror. Without a registry only python, debian and ubuntu images can be made"
    )]
    Unreachable {
        /// As written.
        reference: String,
        /// Host of the registry.
        registry: String,
        /// What happened.
        reason: String,
    },
    /// The registry wants a login, or another one.
    #[error(
        "the registry {registry} refuses access to {reference} ({reason}). \
         Check the name of the image; if it is private, give its login with a registry secret"
    )]
    Denied {
        /// As written.
        reference: String,
        /// Host of the registry.
        registry: String,
        /// What it said.
        reason: String,
    },
    /// The registry has no such image.
    #[error("the registry {registry} has no image {reference} ({reason}). Check its name and tag")]
    NotFound {
        /// As written.
        reference: String,
        /// Host of the registry.
        registry: String,
        /// What it said.
        reason: String,
    },
    /// The registry answers with an error, or with something that isn't an image.
    #[error("the registry {registry} failed on {reference}: {reason}")]
    Registry {
        /// As written.
        reference: String,
        /// Host of the registry.
        registry: String,
        /// What happened.
        reason: String,
    },
    /// Bytes that aren't those that were promised.
    #[error(
        "the registry {registry} sent wrong bytes for {object} of {reference}: {reason}. \
         Try again; if it stays, the registry or a proxy before it is broken"
    )]
    DigestMismatch {
        /// As written.
        reference: String,
        /// Host of the registry.
        registry: String,
        /// Manifest, configuration or layer, with its digest.
        object: String,
        /// Expected and found.
        reason: String,
    },
    /// A layer can't be unpacked.
    #[error("layer {digest} of {reference} can't be unpacked: {source}")]
    Layer {
        /// As written.
        reference: String,
        /// Digest of the layer.
        digest: String,
        /// Why.
        source: Box<LayerError>,
    },
    /// The image's configuration can't be used.
    #[error("the image {reference} can't be used: {source}")]
    Config {
        /// As written.
        reference: String,
        /// Why.
        source: OciConfigError,
    },
    /// No registry, and no bootstrap either.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The store failed.
    #[error("the image {reference} can't be stored: {source}")]
    Store {
        /// As written.
        reference: String,
        /// Why.
        source: StoreError,
    },
    /// What became of an image can't be remembered.
    #[error("writing `{path}` failed: {source}")]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The work was given up before it was done.
    #[error("bringing {reference} was cancelled")]
    Cancelled {
        /// As written.
        reference: String,
    },
}
