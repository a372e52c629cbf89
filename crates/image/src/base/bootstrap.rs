//! Makes a base image from the package archive that this machine itself is installed from.
//!
//! `mmdebstrap` writes the root as a tar stream, which goes the way of a layer; what then makes it
//! behave like the official image of its name is done on the tree. Mirrors, keyrings and proxies are
//! those of the machine's apt configuration; sources of third parties are not used.

mod apt_config;
mod apt_sources;
mod finish;
mod mmdebstrap;
mod wanted;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use homeport_content::SnapshotId;
use homeport_store::{Store, StoreError};
use thiserror::Error;

use super::layer::LayerError;
use super::record::Records;
use super::{BaseOptions, Log, debian_architecture};
use crate::config::ImageConfig;

pub use apt_sources::Archive;
pub use wanted::{Distribution, Wanted};

/// Raised when the same arguments of the bootstrap would give another image.
const RECIPE: u32 = 1;

/// Why no image could be bootstrapped.
#[derive(Debug, Error)]
pub enum BootstrapError {
    /// The archive at hand doesn't have that Python.
    #[error(
        "{reference} can't be bootstrapped: no release in this machine's archive has Python {version}. Available: {available}. \
         Ask for one of these, or make the image's registry reachable"
    )]
    NoSuchPython {
        /// As written.
        reference: String,
        /// Minor version that was asked for.
        version: String,
        /// Versions that there are, in words.
        available: String,
    },
    /// The archive at hand doesn't have that release.
    #[error(
        "{reference} can't be bootstrapped: this machine's archive is that of {archive}. Available: {available}"
    )]
    NoSuchRelease {
        /// As written.
        reference: String,
        /// What the machine is installed from.
        archive: String,
        /// Releases that there are, in words.
        available: String,
    },
    /// The machine's apt configuration names no Debian or Ubuntu archive.
    #[error(
        "no Debian or Ubuntu archive is configured in {0}, so no base image can be bootstrapped; \
         add one, or make a registry reachable"
    )]
    NoArchive(PathBuf),
    /// A file of the apt configuration can't be read.
    #[error("reading `{path}` failed: {source}")]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A program isn't installed or can't be started.
    #[error("`{program}` can't be started ({source}); install it: apt-get install {package}")]
    NoProgram {
        /// What was started.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// `mmdebstrap` failed.
    #[error("bootstrapping {what} failed, mmdebstrap ended with {status}: {last_words}")]
    Failed {
        /// Release and contents.
        what: String,
        /// Exit status.
        status: String,
        /// The lines of its output that tell most.
        last_words: String,
    },
    /// The root that came out can't be read.
    #[error("the bootstrapped root can't be unpacked: {0}")]
    Layer(#[from] LayerError),
    /// The root that came out lacks something.
    #[error("the bootstrapped root is not usable: {0}")]
    Incomplete(String),
    /// The store failed.
    #[error("the bootstrapped image can't be stored: {0}")]
    Store(#[from] StoreError),
    /// What was made can't be remembered.
    #[error("writing `{path}` failed: {source}")]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The work was given up before it was done.
    #[error("the bootstrap was cancelled")]
    Cancelled,
}

/// Makes the image, or finds one made before.
pub(super) async fn bring(
    store: &Arc<Store>,
    records: &Records,
    options: &BaseOptions,
    wanted: &Wanted,
    log: &Log,
) -> Result<(SnapshotId, ImageConfig), BootstrapError> {
    let archive = Archive::of_machine(&options.apt_dir)?;
    let release = wanted.release(archive.distribution)?;
    for note in wanted.notes(release) {
        log(&note);
    }
    let sources = archive.lines(release.codename);
    if sources.security.is_none() {
        log(&format!("this machine's apt has no security archive; {} is made without", release.codename));
    }
    let settings = apt_config::settings().await?;
    for warning in finish::warnings(&sources, &settings) {
        log(&warning);
    }
    let recipe = mmdebstrap::Recipe { release, sources, settings, with_python: wanted.python().is_some() };
    let about = format!("bootstrap {RECIPE} {} {:?}", debian_architecture(), recipe.arguments());
    if let Some((snapshot, config)) = records.find(store, &about, Some(options.bootstrap_max_age)) {
        say_python(wanted, &config, log);
        log(&format!("{} was bootstrapped before; using that", release.codename));
        return Ok((snapshot, config));
    }
    let started = Instant::now();
    log(&format!("bootstrapping {} from {}", release.codename, recipe.sources.main_uri));
    let root = mmdebstrap::run(Arc::clone(store), &recipe, options.limits, log).await?;
    let store = Arc::clone(store);
    let finished = tokio::task::spawn_blocking(move || {
        let (tree, config) = finish::finish(&store, root, &recipe)?;
        Ok::<_, BootstrapError>((store.put_tree(&tree)?, tree.totals(), config))
    });
    let (snapshot, (_, files, bytes), config) = finished.await.map_err(|_| BootstrapError::Cancelled)??;
    records
        .put(&about, snapshot, &config)
        .map_err(|(path, source)| BootstrapError::Record { path, source })?;
    say_python(wanted, &config, log);
    log(&format!(
        "bootstrapped {} in {:.0} s: {files} files, {:.0} MB",
        release.codename,
        started.elapsed().as_secs_f64(),
        bytes as f64 / 1e6
    ));
    Ok((snapshot, config))
}

/// Says so if the patch version isn't the one that was asked for.
fn say_python(wanted: &Wanted, config: &ImageConfig, log: &Log) {
    if let (Some(asked), Some(found)) = (wanted.python(), &config.python)
        && asked != found
        && asked.matches('.').count() == 2
    {
        log(&format!("Python {asked} asked, the archive has {found}"));
    }
}
