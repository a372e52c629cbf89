//! Which addresses containers get.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use super::NetworkError;
use crate::slots::SLOTS;

/// Length of the prefix of an instance's subnet.
pub(super) const SUBNET_PREFIX: u8 = 20;

// The gateway, the network's own address and the broadcast address aside, each slot has an address.
const _: () = assert!(SLOTS + 3 <= 1 << (32 - SUBNET_PREFIX));

/// The range of addresses that instances take their subnets from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubnetRange {
    first: u32,
    prefix: u8,
}

impl Default for SubnetRange {
    /// 10.231.0.0/16.
    fn default() -> SubnetRange {
        SubnetRange { first: u32::from(Ipv4Addr::new(10, 231, 0, 0)), prefix: 16 }
    }
}

impl FromStr for SubnetRange {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<SubnetRange, NetworkError> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let first = u32::from(address.parse::<Ipv4Addr>().ok()?);
            let prefix = prefix.parse().ok().filter(|prefix| (8..=SUBNET_PREFIX).contains(prefix))?;
            (first & !mask(prefix) == 0).then_some(SubnetRange { first, prefix })
        };
        parse().ok_or_else(|| NetworkError::BadRange(text.to_owned()))
    }
}

impl fmt::Display for SubnetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.first), self.prefix)
    }
}

/// An IPv4 subnet of this machine or of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet {
    first: u32,
    prefix: u8,
    /// Place in the range that it was chosen from.
    index: u32,
}

impl Subnet {
    pub(super) fn containing(address: Ipv4Addr, prefix: u8) -> Subnet {
        let prefix = prefix.min(32);
        Subnet { first: u32::from(address) & mask(prefix), prefix, index: 0 }
    }

    pub(super) fn prefix(self) -> u8 {
        self.prefix
    }

    /// The bridge's address.
    pub(super) fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(self.first + 1)
    }

    /// The address of the container in `slot`.
    pub(super) fn address(self, slot: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.first + 2 + slot)
    }

    pub(crate) fn index(self) -> u32 {
        self.index
    }

    fn overlaps(self, other: Subnet) -> bool {
        let mask = mask(self.prefix.min(other.prefix));
        self.first & mask == other.first & mask
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.first), self.prefix)
    }
}

/// The first subnet of the range that overlaps with none that is occupied.
pub(super) fn choose(range: SubnetRange, occupied: &[Subnet]) -> Option<Subnet> {
    let count = 1_u32 << (SUBNET_PREFIX - range.prefix);
    (0..count)
        .map(|index| Subnet {
            first: range.first + (index << (32 - SUBNET_PREFIX)),
            prefix: SUBNET_PREFIX,
            index,
        })
        .find(|subnet| !occupied.iter().any(|other| subnet.overlaps(*other)))
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        let (address, prefix) = text.split_once('/').unwrap();
        Subnet::containing(address.parse().unwrap(), prefix.parse().unwrap())
    }

    #[test]
    fn the_first_subnet_without_overlap_is_chosen() {
        let range = SubnetRange::default();
        let occupied = [subnet("10.231.0.7/32"), subnet("10.231.16.0/19"), subnet("192.168.0.0/16")];
        let chosen = choose(range, &occupied).unwrap();
        assert_eq!(chosen.to_string(), "10.231.32.0/20");
        assert_eq!(chosen.index(), 2);
        assert_eq!(chosen.gateway(), Ipv4Addr::new(10, 231, 32, 1));
        assert_eq!(chosen.address(300), Ipv4Addr::new(10, 231, 33, 46));
    }

    #[test]
    fn a_wider_route_occupies_the_whole_range() {
        assert_eq!(choose(SubnetRange::default(), &[subnet("10.0.0.0/8")]), None);
    }

    #[test]
    fn a_range_that_is_not_one_is_refused() {
        for text in ["10.231.0.0", "10.231.0.0/21", "10.231.0.1/16", "10.231.0/16", "x/16"] {
            assert!(text.parse::<SubnetRange>().is_err(), "{text}");
        }
        assert_eq!("172.20.0.0/14".parse::<SubnetRange>().unwrap().to_string(), "172.20.0.0/14");
    }
}
