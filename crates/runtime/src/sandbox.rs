//! What a container runs in: a user namespace with host ids of its own, and a network namespace with an address.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use crate::namespaces::{self, IDS, NamespaceError, Namespaces};
use crate::network::NetworkError;
use crate::runtime::Shared;
use crate::slots::{SLOTS, Slot};

/// First host id of the first container. The range up to 0x7000_0000 is what container runtimes commonly use; ids above
/// 2³¹ confuse parts of the kernel.
const FIRST_HOST_ID: u32 = 0x4000_0000;
/// Instances on one machine that get distinct host ids.
const INSTANCES: u32 = 16;

/// A sandbox could not be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// All slots are taken.
    #[error("no sandbox for the task `{task}`: this machine already runs the {SLOTS} containers that it can")]
    Full {
        /// Who asked.
        task: String,
    },
    /// The namespaces could not be made.
    #[error("no sandbox for the task `{task}`: {source}")]
    Namespaces {
        /// Who asked.
        task: String,
        /// What happened.
        source: NamespaceError,
    },
    /// The network could not be set up.
    #[error("no network for the task `{task}`: {source}")]
    Network {
        /// Who asked.
        task: String,
        /// What happened.
        source: NetworkError,
    },
    /// A listener inside the sandbox could not be had.
    #[error("listening on {address} inside the network of the task `{task}`: {source}")]
    Listen {
        /// Whose sandbox.
        task: String,
        /// The address asked for.
        address: SocketAddr,
        /// What happened.
        source: io::Error,
    },
}

/// How ids inside a sandbox relate to the host's: container id `n` is host id `host_base + n`.
#[derive(Debug)]
pub struct IdMap {
    /// The user namespace, for id-mapped mounts.
    pub userns: OwnedFd,
    /// Host id of the container's root.
    pub host_base: u32,
    /// Number of ids mapped.
    pub size: u32,
}

/// Namespaces for one container, with their place in the instance's network. Dropping it takes the network away; remove
/// the container first.
#[derive(Debug)]
pub struct Sandbox {
    task: String,
    id_map: Option<IdMap>,
    netns: OwnedFd,
    address: Ipv4Addr,
    shared: Arc<Shared>,
    slot: Slot,
}

impl Sandbox {
    pub(crate) fn make(shared: &Arc<Shared>, task: &str) -> Result<Sandbox, SandboxError> {
        let network_failed = |source| SandboxError::Network { task: task.to_owned(), source };
        let network = shared.network().map_err(network_failed)?;
        let slot = shared.slots.take().ok_or_else(|| SandboxError::Full { task: task.to_owned() })?;
        let host_base = shared.user_namespaces.then(|| host_base(network.subnet().index(), slot.number()));
        let Namespaces { user, net } = namespaces::make(host_base)
            .map_err(|source| SandboxError::Namespaces { task: task.to_owned(), source })?;
        let address = network.attach(net.as_fd(), slot.number()).map_err(network_failed)?;
        Ok(Sandbox {
            task: task.to_owned(),
            id_map: user.zip(host_base).map(|(userns, host_base)| IdMap { userns, host_base, size: IDS }),
            netns: net,
            address,
            shared: Arc::clone(shared),
            slot,
        })
    }

    /// The mapping of ids; `None` where this machine has no user namespaces, and ids inside are the host's.
    pub fn id_map(&self) -> Option<&IdMap> {
        self.id_map.as_ref()
    }

    /// The container's address on the instance's bridge.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Binds a listener inside the sandbox's network namespace; processes there reach it, nobody else does when the
    /// address is on loopback. The socket is blocking, and stays in the namespace wherever it is used.
    pub fn listen(&self, address: SocketAddr) -> Result<TcpListener, SandboxError> {
        let failed = |source| SandboxError::Listen { task: self.task.clone(), address, source };
        namespaces::within(Some(self.netns.as_fd()), || TcpListener::bind(address))
            .map_err(|error| failed(io::Error::other(error)))?
            .map_err(failed)
    }

    /// The path by which another process of this machine joins the network namespace, while `self` lives.
    pub(crate) fn netns_path(&self) -> String {
        descriptor_path(&self.netns)
    }

    /// Like [`Sandbox::netns_path`], for the user namespace.
    pub(crate) fn userns_path(&self) -> Option<String> {
        self.id_map.as_ref().map(|map| descriptor_path(&map.userns))
    }

    /// The host's id for the container's root.
    pub(crate) fn root_id(&self) -> u32 {
        self.id_map.as_ref().map_or(0, |map| map.host_base)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Err(error) = self.shared.detach(self.slot.number()) {
            tracing::warn!(task = self.task, %error, "the link of a container could not be removed");
        }
    }
}

fn descriptor_path(descriptor: &OwnedFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), descriptor.as_raw_fd())
}

/// Distinct for every container of the instances on this machine.
fn host_base(instance: u32, slot: u32) -> u32 {
    FIRST_HOST_ID + ((instance % INSTANCES) * SLOTS + slot) * IDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_ids_of_the_last_container_stay_below_the_sign_bit() {
        let last = host_base(INSTANCES - 1, SLOTS - 1);
        assert_eq!(last.checked_add(IDS), Some(0x7000_0000));
        assert_ne!(host_base(1, 0), host_base(0, SLOTS - 1));
    }
}
