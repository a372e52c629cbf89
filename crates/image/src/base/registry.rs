//! Pulls images from registries by the OCI distribution protocol.
//!
//! Every manifest, configuration and layer is checked against its digest while it comes in, and nothing
//! of an image is visible before all of it was right. Layers are pulled one after another, since each
//! is applied as it comes.

mod blob;
mod failure;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use homeport_content::SnapshotId;
use homeport_store::Store;
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::manifest::{OciDescriptor, OciImageManifest, OciManifest};
use oci_client::secrets::RegistryAuth;
use oci_client::{RegistryOperation, client};
use tokio::runtime::Handle;

use super::layer::Layering;
use super::record::Records;
use super::{BaseError, BaseOptions, Credentials, Log, architecture};
use crate::config::ImageConfig;
use blob::Blob;

pub use oci_client::Reference;

/// Largest configuration of an image.
const MAX_CONFIG: i64 = 8 << 20;
/// How long a registry may be silent in the middle of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Reads a reference as Docker does: `python:3.11` is `docker.io/library/python:3.11`.
pub fn parse(reference: &str) -> Result<Reference, BaseError> {
    reference.parse().map_err(|error: oci_client::ParseError| BaseError::BadReference {
        reference: reference.to_owned(),
        reason: error.to_string(),
    })
}

/// A registry that may have the image.
#[derive(Clone, Debug)]
pub struct Source {
    reference: Reference,
    protocol: ClientProtocol,
    pub(super) is_mirror: bool,
}

/// The registries to ask for `image`, in their order.
pub(super) fn sources(image: &Reference, mirror: Option<&str>) -> Result<Vec<Source>, BaseError> {
    let mut sources = Vec::new();
    if let Some(url) = mirror.filter(|_| image.registry() == "docker.io") {
        let (protocol, host) = match url.trim_end_matches('/').split_once("://") {
            Some(("http", host)) => (ClientProtocol::HttpsExcept(vec![host.to_owned()]), host),
            Some(("https", host)) => (ClientProtocol::Https, host),
            _ => return Err(BaseError::BadMirror(url.to_owned())),
        };
        if host.is_empty() || host.contains(['/', '@', '?']) {
            return Err(BaseError::BadMirror(url.to_owned()));
        }
        let mut reference = image.clone();
        reference.set_mirror_registry(host.to_owned());
        sources.push(Source { reference, protocol, is_mirror: true });
    }
    let host = image.resolve_registry();
    let protocol = if is_loopback(host) {
        ClientProtocol::HttpsExcept(vec![host.to_owned()])
    } else {
        ClientProtocol::Https
    };
    sources.push(Source { reference: image.clone(), protocol, is_mirror: false });
    Ok(sources)
}

/// Plain HTTP is spoken to this machine alone.
fn is_loopback(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => host,
        _ => registry,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

impl Source {
    /// Host and port that are asked.
    pub(super) fn host(&self) -> &str {
        self.reference.resolve_registry()
    }

    pub(super) fn unreachable(&self, reason: &str) -> BaseError {
        BaseError::Unreachable {
            reference: self.reference.whole(),
            registry: self.host().to_owned(),
            reason: reason.to_owned(),
        }
    }

    fn failed(&self, reason: impl Into<String>) -> BaseError {
        BaseError::Registry {
            reference: self.reference.whole(),
            registry: self.host().to_owned(),
            reason: reason.into(),
        }
    }

    fn client(&self, options: &BaseOptions) -> Result<Client, BaseError> {
        // The HTTP client takes the process's provider. An error means that there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = ClientConfig {
            protocol: self.protocol.clone(),
            connect_timeout: Some(options.connect_timeout),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: concat!("homeport/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        Client::try_from(config).map_err(|error| self.failed(error.to_string()))
    }
}

/// Pulls the image of `source` into the store.
pub(super) async fn pull(
    store: &Arc<Store>,
    records: &Records,
    options: &BaseOptions,
    source: &Source,
    credentials: Option<&Credentials>,
    log: &Log,
) -> Result<(SnapshotId, ImageConfig), BaseError> {
    let client = source.client(options)?;
    let auth = match credentials {
        Some(credentials) => RegistryAuth::Basic(credentials.username.clone(), credentials.password.clone()),
        None => RegistryAuth::Anonymous,
    };
    let said = |error| failure::classify(source, "the manifest", error);
    // The first request tells whether anybody is there; what comes later may take its time.
    let answer = client.auth(&source.reference, &auth, RegistryOperation::Pull);
    match tokio::time::timeout(options.connect_timeout * 3, answer).await {
        Ok(answer) => drop(answer.map_err(said)?),
        Err(_) => return Err(source.unreachable("it doesn't answer")),
    }
    let (manifest, digest) = manifest(&client, source, &auth).await?;
    let about = format!("image manifest {digest} for linux/{}", architecture());
    if let Some(found) = records.find(store, &about, None) {
        log(&format!("{} ({digest}) is here already", source.reference));
        return Ok(found);
    }
    log(&format!(
        "pulling {} ({digest}) from {}: {} layers, {} compressed",
        source.reference,
        source.host(),
        manifest.layers.len(),
        megabytes(manifest.layers.iter().map(|layer| layer.size.max(0)).sum())
    ));
    let cancelled = CancelOnDrop::default();
    let work = Pull {
        store: Arc::clone(store),
        options: options.clone(),
        source: source.clone(),
        client,
        manifest,
        log: Arc::clone(log),
        cancelled: Arc::clone(&cancelled.0),
        handle: Handle::current(),
    };
    let brought = tokio::task::spawn_blocking(move || work.bring())
        .await
        .map_err(|error| source.failed(error.to_string()))?;
    let (snapshot, config) = brought?;
    records.put(&about, snapshot, &config).map_err(|(path, source)| BaseError::Record { path, source })?;
    Ok((snapshot, config))
}

/// The manifest for this machine's platform, with its digest.
async fn manifest(
    client: &Client,
    source: &Source,
    auth: &RegistryAuth,
) -> Result<(OciImageManifest, String), BaseError> {
    let said = |error| failure::classify(source, "the manifest", error);
    let (manifest, digest) = client.pull_manifest(&source.reference, auth).await.map_err(said)?;
    let index = match manifest {
        OciManifest::Image(manifest) => return Ok((manifest, digest)),
        OciManifest::ImageIndex(index) => index,
    };
    let Some(chosen) = client::current_platform_resolver(&index.manifests) else {
        let offered: Vec<String> = index
            .manifests
            .iter()
            .filter_map(|entry| entry.platform.as_ref())
            .map(|platform| format!("{}/{}", platform.os, platform.architecture))
            .collect();
        return Err(BaseError::NotFound {
            reference: source.reference.whole(),
            registry: source.host().to_owned(),
            reason: format!("it is for {}, this machine is linux/{}", offered.join(", "), architecture()),
        });
    };
    let reference = source.reference.clone_with_digest(chosen);
    match client.pull_manifest(&reference, auth).await.map_err(said)? {
        (OciManifest::Image(manifest), digest) => Ok((manifest, digest)),
        (OciManifest::ImageIndex(_), _) => Err(source.failed("a manifest list inside a manifest list")),
    }
}

/// Tells the blocking part that nobody waits for it any more.
#[derive(Default)]
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Pull {
    store: Arc<Store>,
    options: BaseOptions,
    source: Source,
    client: Client,
    manifest: OciImageManifest,
    log: Log,
    cancelled: Arc<AtomicBool>,
    handle: Handle,
}

impl Pull {
    /// Blocking: reads what the network gives and writes to the store.
    fn bring(&self) -> Result<(SnapshotId, ImageConfig), BaseError> {
        let config = self.config()?;
        let stored = |source| BaseError::Store { reference: self.source.reference.whole(), source };
        let batch = self.store.batch().map_err(stored)?;
        let mut layering = Layering::new(&batch, self.options.limits);
        let count = self.manifest.layers.len();
        for (index, layer) in self.manifest.layers.iter().enumerate() {
            (self.log)(&format!(
                "layer {}/{count}: {} {}",
                index + 1,
                layer.digest,
                megabytes(layer.size.max(0))
            ));
            self.layer(layer, &mut layering)?;
        }
        let tree = layering.finish();
        batch.publish().map_err(stored)?;
        let snapshot = self.store.put_tree(&tree).map_err(stored)?;
        Ok((snapshot, config))
    }

    fn config(&self) -> Result<ImageConfig, BaseError> {
        let descriptor = &self.manifest.config;
        if !(0..=MAX_CONFIG).contains(&descriptor.size) {
            return Err(self.source.failed(format!("the configuration has {} bytes", descriptor.size)));
        }
        let mut blob = self.open(descriptor, "the configuration")?;
        let mut json = Vec::new();
        let read = std::io::Read::read_to_end(&mut blob, &mut json);
        if let Some(fault) = blob.fault() {
            return Err(self.blob_error("the configuration", descriptor, fault));
        }
        read.map_err(|error| self.source.failed(error.to_string()))?;
        ImageConfig::from_oci(&json, ("linux", architecture()))
            .map_err(|source| BaseError::Config { reference: self.source.reference.whole(), source })
    }

    fn layer(&self, descriptor: &OciDescriptor, layering: &mut Layering<'_, '_>) -> Result<(), BaseError> {
        let mut blob = self.open(descriptor, "a layer")?;
        let applied = super::compression::decompressed(&mut blob)
            .map_err(|error| super::tar_stream::TarError::from(error).into())
            .and_then(|mut tar| {
                layering.apply(&mut tar)?;
                // What follows the end mark belongs to the compressed stream's own checks.
                std::io::copy(&mut tar, &mut std::io::sink()).map_err(super::tar_stream::TarError::from)?;
                Ok(())
            });
        // Wrong bytes show in many ways; the digest tells them from a layer that was made wrong.
        let _ = std::io::copy(&mut blob, &mut std::io::sink());
        if let Some(fault) = blob.fault() {
            return Err(self.blob_error("layer", descriptor, fault));
        }
        applied.map_err(|source| BaseError::Layer {
            reference: self.source.reference.whole(),
            digest: descriptor.digest.clone(),
            source: Box::new(source),
        })
    }

    fn open(&self, descriptor: &OciDescriptor, what: &str) -> Result<Blob, BaseError> {
        let opened = self
            .handle
            .block_on(self.client.pull_blob_stream(&self.source.reference, descriptor))
            .map_err(|error| failure::classify(&self.source, what, error))?;
        let size = u64::try_from(descriptor.size)
            .map_err(|_| self.source.failed(format!("{} has a negative size", descriptor.digest)))?;
        Ok(Blob::new(
            opened.stream,
            size,
            self.handle.clone(),
            Arc::clone(&self.cancelled),
            Arc::clone(&self.log),
        ))
    }

    fn blob_error(&self, what: &str, descriptor: &OciDescriptor, fault: blob::Fault) -> BaseError {
        let reference = self.source.reference.whole();
        let registry = self.source.host().to_owned();
        match fault {
            blob::Fault::Cancelled => BaseError::Cancelled { reference },
            blob::Fault::Digest(reason) => BaseError::DigestMismatch {
                reference,
                registry,
                object: format!("{what} {}", descriptor.digest),
                reason,
            },
            blob::Fault::Broken(reason) => BaseError::Registry {
                reference,
                registry,
                reason: format!("the download of {} broke off: {reason}; try again", descriptor.digest),
            },
        }
    }
}

fn megabytes(bytes: i64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_docker_hubs_and_loopback_is_plain() {
        let image = parse("python:3.11-slim").unwrap();
        assert_eq!(image.whole(), "docker.io/library/python:3.11-slim");
        let image = parse("localhost:5000/a/b").unwrap();
        assert_eq!(image.whole(), "localhost:5000/a/b:latest");
        for (registry, expected) in [
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("[::1]:5000", true),
            ("localhost", true),
            ("ghcr.io", false),
            ("10.0.0.1:5000", false),
            ("localhost.example.com", false),
        ] {
            assert_eq!(is_loopback(registry), expected, "{registry}");
        }
    }

    #[test]
    fn mirror_is_asked_first_and_for_docker_hub_only() {
        let hosts = |image: &str, mirror| {
            let sources = sources(&parse(image).unwrap(), mirror)?;
            Ok::<_, BaseError>(sources.iter().map(|source| source.host().to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(
            hosts("debian", Some("http://10.0.0.1:5000/")).unwrap(),
            ["10.0.0.1:5000", "index.docker.io"]
        );
        assert_eq!(hosts("ghcr.io/a/b", Some("http://10.0.0.1:5000")).unwrap(), ["ghcr.io"]);
        for bad in ["10.0.0.1:5000", "ftp://x", "https://", "https://host/path"] {
            assert!(matches!(hosts("debian", Some(bad)), Err(BaseError::BadMirror(_))), "{bad}");
        }
    }

    #[test]
    fn what_is_no_reference_is_refused_with_an_example() {
        let error = parse("Python:3.11").unwrap_err().to_string();
        assert!(error.contains("`Python:3.11` is not an image reference"), "{error}");
    }
}
