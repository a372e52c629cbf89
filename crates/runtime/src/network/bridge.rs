//! The instance's bridge, and the link of each container to it.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use rtnetlink::packet_route::link::{
    InfoBridgePort, InfoData, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::address::Subnet;
use super::netlink::{errno, failed, find_link, link_index, links, name_of, with_netlink};
use super::{Network, NetworkError};
use crate::names::Names;

/// The container's end of its link.
const CONTAINER_LINK: &str = "eth0";

/// Makes the bridge with the subnet's first address, and returns its index.
pub(super) fn make(
    names: &Names,
    subnet: Subnet,
    mtu: Option<u32>,
    alias: Option<&str>,
) -> Result<u32, NetworkError> {
    let name = names.bridge();
    with_netlink(None, |handle| async move {
        let mut message = LinkMessageBuilder::<LinkBridge>::new(&name);
        if let Some(mtu) = mtu {
            message = message.mtu(mtu);
        }
        handle
            .link()
            .add(message.build())
            .execute()
            .await
            .map_err(failed(format!("making the bridge `{name}`")))?;
        // Containers must not find the machine by its link-local address. Where the kernel lacks IPv6 there is none.
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        let index = link_index(&handle, &name).await?;
        handle
            .address()
            .add(index, IpAddr::V4(subnet.gateway()), subnet.prefix())
            .execute()
            .await
            .map_err(failed(format!("giving the bridge `{name}` an address of {subnet}")))?;
        if let Some(alias) = alias {
            let alias = LinkAttribute::IfAlias(alias.to_owned());
            let message = LinkUnspec::new_with_index(index).append_extra_attribute(alias);
            handle
                .link()
                .set(message.build())
                .execute()
                .await
                .map_err(failed(format!("giving the bridge `{name}` its alias")))?;
        }
        set_up(&handle, index, &name).await?;
        Ok(index)
    })
}

/// Links a network namespace to the bridge, with address, default route and loopback.
pub(super) fn attach(network: &Network, netns: BorrowedFd<'_>, slot: u32) -> Result<Ipv4Addr, NetworkError> {
    let address = network.subnet.address(slot);
    connect(network, netns, slot).and_then(|()| configure(netns, address, network.subnet)).inspect_err(
        |_| {
            // The error that the caller gets is the first one.
            let _ = remove_link(&network.names.veth(slot));
        },
    )?;
    Ok(address)
}

fn connect(network: &Network, netns: BorrowedFd<'_>, slot: u32) -> Result<(), NetworkError> {
    let name = network.names.veth(slot);
    let netns = netns.as_raw_fd();
    with_netlink(None, |handle| async move {
        let mut inner =
            LinkMessageBuilder::<LinkUnspec>::new().name(CONTAINER_LINK.to_owned()).setns_by_fd(netns);
        let mut outer =
            LinkMessageBuilder::<LinkVeth>::new(&name, CONTAINER_LINK).controller(network.bridge).up();
        if let Some(mtu) = network.mtu {
            inner = inner.mtu(mtu);
            outer = outer.mtu(mtu);
        }
        let outer = outer.set_info_data(InfoData::Veth(InfoVeth::Peer(inner.build())));
        handle
            .link()
            .add(outer.build())
            .execute()
            .await
            .map_err(failed(format!("making the link `{name}` to the network of a container")))?;
        let index = link_index(&handle, &name).await?;
        let isolated = LinkMessageBuilder::<LinkUnspec>::new()
            .index(index)
            .set_port_kind(InfoPortKind::Bridge)
            .set_port_data(InfoPortData::BridgePort(vec![InfoBridgePort::Isolated(true)]))
            .build();
        handle
            .link()
            .set_port(isolated)
            .execute()
            .await
            .map_err(failed(format!("isolating the link `{name}` from other containers")))
    })
}

fn configure(netns: BorrowedFd<'_>, address: Ipv4Addr, subnet: Subnet) -> Result<(), NetworkError> {
    with_netlink(Some(netns), |handle| async move {
        let loopback = link_index(&handle, "lo").await?;
        set_up(&handle, loopback, "lo").await?;
        let link = link_index(&handle, CONTAINER_LINK).await?;
        handle
            .address()
            .add(link, IpAddr::V4(address), subnet.prefix())
            .execute()
            .await
            .map_err(failed(format!("giving a container the address {address}")))?;
        set_up(&handle, link, CONTAINER_LINK).await?;
        let gateway = subnet.gateway();
        handle
            .route()
            .add(RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build())
            .execute()
            .await
            .map_err(failed(format!("giving a container its route by {gateway}")))
    })
}

async fn set_up(handle: &Handle, index: u32, name: &str) -> Result<(), NetworkError> {
    handle
        .link()
        .set(LinkUnspec::new_with_index(index).up().build())
        .execute()
        .await
        .map_err(failed(format!("bringing up the link `{name}`")))
}

/// Removes a link; one that isn't there counts as removed.
pub(super) fn remove_link(name: &str) -> Result<(), NetworkError> {
    with_netlink(None, |handle| async move {
        match find_link(&handle, name).await? {
            Some(index) => delete(&handle, index, name).await,
            None => Ok(()),
        }
    })
}

/// Removes every link of the instance, the bridge included, and returns how many there were.
pub(super) fn remove_links(names: &Names) -> Result<usize, NetworkError> {
    with_netlink(None, |handle| async move {
        let mut removed = 0;
        for link in links(&handle).await? {
            let Some(name) = name_of(&link).filter(|name| names.owns_link(name)) else {
                continue;
            };
            delete(&handle, link.header.index, &name).await?;
            removed += 1;
        }
        Ok(removed)
    })
}

async fn delete(handle: &Handle, index: u32, name: &str) -> Result<(), NetworkError> {
    match handle.link().del(index).execute().await {
        Ok(()) => Ok(()),
        // The namespace of its other end went away meanwhile, and the link with it.
        Err(error) if errno(&error) == Some(libc::ENODEV) => Ok(()),
        Err(error) => Err(failed(format!("removing the link `{name}`"))(error)),
    }
}
