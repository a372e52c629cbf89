//! Requests to the kernel about links, addresses and routes.

use std::future::Future;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use futures::TryStreamExt;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::NetworkError;
use super::address::Subnet;
use crate::namespaces;

/// Runs `work` with a connection to netlink in the given network namespace, or in this process's own.
pub(super) fn with_netlink<T, F>(
    netns: Option<BorrowedFd<'_>>,
    work: impl FnOnce(Handle) -> F + Send,
) -> Result<T, NetworkError>
where
    T: Send,
    F: Future<Output = Result<T, NetworkError>>,
{
    namespaces::within(netns, move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(NetworkError::Socket)?;
        runtime.block_on(async move {
            let (connection, handle, _) = rtnetlink::new_connection().map_err(NetworkError::Socket)?;
            tokio::spawn(connection);
            work(handle).await
        })
    })?
}

/// Names the request in its error.
pub(super) fn failed(action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
    let action = action.into();
    move |source| NetworkError::Netlink { action, source }
}

/// The names of all links of this process's network namespace, with their aliases.
pub(super) fn link_aliases() -> Result<Vec<(String, Option<String>)>, NetworkError> {
    with_netlink(None, |handle| async move {
        Ok(links(&handle)
            .await?
            .iter()
            .filter_map(|link| {
                let alias = link.attributes.iter().find_map(|attribute| match attribute {
                    LinkAttribute::IfAlias(alias) => Some(alias.clone()),
                    _ => None,
                });
                Some((name_of(link)?, alias))
            })
            .collect())
    })
}

pub(super) async fn links(handle: &Handle) -> Result<Vec<LinkMessage>, NetworkError> {
    handle
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(failed("listing the network links of this machine"))
}

/// The index of a link; `None` when there is no such link.
pub(super) async fn find_link(handle: &Handle, name: &str) -> Result<Option<u32>, NetworkError> {
    let found = handle.link().get().match_name(name.to_owned()).execute().try_next().await;
    match found {
        Ok(link) => Ok(link.map(|link| link.header.index)),
        Err(error) if errno(&error) == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(failed(format!("looking up the link `{name}`"))(error)),
    }
}

pub(super) async fn link_index(handle: &Handle, name: &str) -> Result<u32, NetworkError> {
    find_link(handle, name).await?.ok_or_else(|| NetworkError::NoLink(name.to_owned()))
}

pub(super) fn name_of(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

/// The positive error number in the kernel's answer.
pub(super) fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|code| code.get().saturating_abs()),
        _ => None,
    }
}

/// Every IPv4 subnet that an address or a route of this machine names; default routes aside.
pub(super) fn occupied_subnets() -> Result<Vec<Subnet>, NetworkError> {
    with_netlink(None, |handle| async move {
        let mut occupied = Vec::new();
        let mut addresses = handle.address().get().execute();
        while let Some(message) =
            addresses.try_next().await.map_err(failed("listing the addresses of this machine"))?
        {
            for attribute in &message.attributes {
                if let AddressAttribute::Address(IpAddr::V4(address))
                | AddressAttribute::Local(IpAddr::V4(address)) = attribute
                {
                    occupied.push(Subnet::containing(*address, message.header.prefix_len));
                }
            }
        }
        for route in routes(&handle).await? {
            let prefix = route.header.destination_prefix_length;
            for attribute in &route.attributes {
                if let RouteAttribute::Destination(RouteAddress::Inet(address)) = attribute
                    && prefix > 0
                {
                    occupied.push(Subnet::containing(*address, prefix));
                }
            }
        }
        Ok(occupied)
    })
}

/// The packet size of the link that the default route leads to. Containers' links get the same, so that no packet of
/// theirs needs to be cut on its way out.
pub(super) fn mtu_of_default_route() -> Result<Option<u32>, NetworkError> {
    with_netlink(None, |handle| async move {
        let Some(outgoing) = routes(&handle)
            .await?
            .iter()
            .filter(|route| route.header.destination_prefix_length == 0)
            .find_map(|route| {
                route.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Oif(index) => Some(*index),
                    _ => None,
                })
            })
        else {
            return Ok(None);
        };
        let found = links(&handle).await?;
        let Some(link) = found.iter().find(|link| link.header.index == outgoing) else {
            return Ok(None);
        };
        Ok(link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        }))
    })
}

async fn routes(handle: &Handle) -> Result<Vec<RouteMessage>, NetworkError> {
    handle
        .route()
        .get(RouteMessageBuilder::<std::net::Ipv4Addr>::new().build())
        .execute()
        .try_collect()
        .await
        .map_err(failed("listing the routes of this machine"))
}
