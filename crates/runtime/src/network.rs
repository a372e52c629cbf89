//! The network of an instance: one bridge, one nft table, one link for each container.
//!
//! Each container has an address of a subnet that no other part of the machine uses, and reaches the outside through
//! masquerading. It reaches neither the machine itself (but for name servers that the machine runs) nor other
//! containers: the ports of the bridge are isolated from each other, and the table drops the rest.
//! Absent: IPv6 to the outside, and any way in from the outside.

mod address;
mod bridge;
mod forwarding;
mod nat;
mod netlink;
mod resolver;

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::path::Path;

pub(crate) use address::Subnet;
pub use address::SubnetRange;
pub(crate) use resolver::has_name_servers;
pub use resolver::host_resolv_conf;

use crate::names::Names;
use crate::namespaces::NamespaceError;

/// The network of the instance, or of one container, could not be made or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// A netlink request failed.
    #[error("{action}: {source}")]
    Netlink {
        /// What was asked for, with the names of the links.
        action: String,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// A netlink socket could not be opened.
    #[error("opening a netlink socket: {0}")]
    Socket(io::Error),
    /// A thread or namespace for the request could not be had.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// A link that was just made, or that the routes name, isn't there.
    #[error("the network link `{0}` is gone: something else on this machine removes links")]
    NoLink(String),
    /// Every subnet of the range overlaps with an address or route of this machine.
    #[error(
        "no free /{prefix} subnet in {range}: each overlaps with an address or a route of this machine; \
         set another range for containers"
    )]
    NoFreeSubnet {
        /// The configured range.
        range: SubnetRange,
        /// Length of the prefix that was sought.
        prefix: u8,
    },
    /// The `nft` program could not be run.
    #[error("running `{program}`: {source}; install the package nftables")]
    NftMissing {
        /// The program as configured.
        program: String,
        /// Why it didn't start.
        source: io::Error,
    },
    /// `nft` refused the rules.
    #[error("`nft` could not {action} the table `{table}`: {message}")]
    Nft {
        /// `load` or `delete`.
        action: &'static str,
        /// The table's name.
        table: String,
        /// What `nft` wrote.
        message: String,
    },
    /// A kernel setting could not be read or written.
    #[error("setting `{path}` for outgoing traffic of containers: {source}")]
    Sysctl {
        /// The file below `/proc/sys`.
        path: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The machine's firewall drops what it forwards, and the exception for containers could not be added.
    #[error("the machine's firewall drops forwarded packets, and `iptables {arguments}` failed: {message}")]
    Firewall {
        /// The arguments given.
        arguments: String,
        /// What it wrote.
        message: String,
    },
    /// A text that is no subnet range.
    #[error("`{0}` is no IPv4 range of the form 10.231.0.0/16 with a prefix from 8 to 20")]
    BadRange(String),
}

/// The network of an instance, up until [`Network::down`].
#[derive(Debug)]
pub(crate) struct Network {
    names: Names,
    subnet: Subnet,
    bridge: u32,
    mtu: Option<u32>,
}

impl Network {
    /// Makes the bridge and the table, after removing what an earlier process of the same instance left.
    pub(crate) fn up(
        names: &Names,
        range: SubnetRange,
        nft: &Path,
        state_dir: &Path,
    ) -> Result<Network, NetworkError> {
        bridge::remove_links(names)?;
        let subnet = address::choose(range, &netlink::occupied_subnets()?)
            .ok_or(NetworkError::NoFreeSubnet { range, prefix: address::SUBNET_PREFIX })?;
        let mtu = netlink::mtu_of_default_route()?;
        let forwarding_was_off = forwarding::was_off(state_dir)?;
        let alias = forwarding_was_off.then_some(forwarding::FORWARDING_WAS_OFF);
        let bridge = bridge::make(names, subnet, mtu, alias)?;
        nat::load_table(nft, names, subnet, &resolver::host_name_servers())?;
        forwarding::turn_on()?;
        forwarding::admit(names, nft, state_dir)?;
        Ok(Network { names: names.clone(), subnet, bridge, mtu })
    }

    /// Links a network namespace as the container in `slot`, and returns its address.
    pub(crate) fn attach(&self, netns: BorrowedFd<'_>, slot: u32) -> Result<Ipv4Addr, NetworkError> {
        bridge::attach(self, netns, slot)
    }

    /// Removes the link of the container in `slot`, if it is there.
    pub(crate) fn detach(&self, slot: u32) -> Result<(), NetworkError> {
        bridge::remove_link(&self.names.veth(slot))
    }

    /// The subnet's place in the range: distinct for each instance on the machine.
    pub(crate) fn subnet(&self) -> Subnet {
        self.subnet
    }
}

/// Removes bridge, links and table of an instance, and sets forwarding back if the instance had turned it on.
/// Goes on after a failure and returns the first.
pub(crate) fn remove(names: &Names, nft: &Path, state_dir: &Path) -> Result<usize, NetworkError> {
    let firewall = forwarding::dismiss(names, state_dir);
    let forwarding = forwarding::restore(names, state_dir);
    let links = bridge::remove_links(names);
    let table = nat::remove_table(nft, names);
    firewall.and(table).and(forwarding)?;
    links
}
