//! Ends what is left of an instance's containers and network, by name.
//!
//! Nothing here trusts records about processes: a process is ended because it is in a cgroup of the instance.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::cgroup::CgroupError;
use crate::network::NetworkError;
use crate::runtime::Shared;

/// What was found and removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Containers that the OCI runtime still knew.
    pub containers: usize,
    /// Processes that were killed.
    pub processes: usize,
    /// Network links, the bridge included.
    pub links: usize,
}

/// Something of an earlier process could not be removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// A cgroup.
    #[error("clearing away containers: {0}")]
    Cgroup(#[from] CgroupError),
    /// Links, table or forwarding.
    #[error("clearing away the containers' network: {0}")]
    Network(#[from] NetworkError),
    /// Files of the state directory.
    #[error("clearing away containers: removing `{path}`: {source}")]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

pub(crate) fn recover(shared: &Shared) -> Result<Recovered, RecoverError> {
    // Processes first: the OCI runtime then has only its own records to remove, and a hook of it can't fail on them.
    let group = shared.hierarchies.group(&shared.names.cgroup());
    let processes = group.end()?;
    let known = shared.runc.containers();
    for id in &known {
        if let Err(error) = shared.runc.delete(id, &shared.options.state_dir) {
            tracing::warn!(%error, "forgetting a container of an earlier process");
            shared.runc.forget(id);
        }
    }
    let bundles = shared.bundles();
    let file = |source| RecoverError::File { path: bundles.clone(), source };
    match fs::remove_dir_all(&bundles) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(file(error)),
    }
    fs::create_dir_all(&bundles).map_err(file)?;
    let links = shared.remove_network()?;
    Ok(Recovered { containers: known.len(), processes, links })
}
