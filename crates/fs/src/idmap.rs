//! Ids of a container and of the host, and where ids hide in attributes.

use std::os::fd::OwnedFd;

/// Where ids that have no counterpart appear, as the kernel shows them.
const NOBODY: u32 = 65_534;

const CAPABILITY_REVISION: u32 = 0xff00_0000;
const CAPABILITY_VERSION_2: u32 = 0x0200_0000;
const CAPABILITY_VERSION_3: u32 = 0x0300_0000;

/// How a container's ids map to the host's: `0..size` inside are `host_base..` outside.
#[derive(Debug)]
pub struct IdMap {
    /// The user namespace of the container, which has this map for users and groups alike.
    pub userns: OwnedFd,
    /// What id 0 of the container is on the host.
    pub host_base: u32,
    /// Number of mapped ids.
    pub size: u32,
}

impl IdMap {
    /// The host's id for an id of the container.
    pub fn to_host(&self, id: u32) -> Option<u32> {
        if id < self.size { self.host_base.checked_add(id) } else { None }
    }

    /// The container's id for an id of the host; 65534 if it has none.
    pub fn to_container(&self, id: u32) -> u32 {
        match id.checked_sub(self.host_base) {
            Some(inside) if inside < self.size => inside,
            _ => NOBODY,
        }
    }
}

/// Shifts ids of `system.posix_acl_*` values: a version word, then 8-byte entries of a tag, the
/// permissions and an id, which counts only for named users (2) and groups (8).
pub(crate) fn acl_to_container(value: &mut [u8], map: &IdMap) {
    let Some((_, entries)) = value.split_at_mut_checked(4) else {
        return;
    };
    for entry in entries.chunks_exact_mut(8) {
        if matches!(u16::from_le_bytes([entry[0], entry[1]]), 2 | 8) {
            let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
            entry[4..8].copy_from_slice(&map.to_container(id).to_le_bytes());
        }
    }
}

/// The container's view of `security.capability`: capabilities of its own root are plain ones
/// (version 2, 20 bytes); those of another namespace's root name that root (version 3, 24 bytes).
pub(crate) fn capability_to_container(value: &[u8], map: &IdMap) -> Box<[u8]> {
    let word = |at: usize| match value.get(at..at + 4) {
        Some([a, b, c, d]) => u32::from_le_bytes([*a, *b, *c, *d]),
        _ => 0,
    };
    if value.len() != 24 || word(0) & CAPABILITY_REVISION != CAPABILITY_VERSION_3 {
        return value.into();
    }
    let root = map.to_container(word(20));
    if root == 0 {
        let header = (word(0) & !CAPABILITY_REVISION) | CAPABILITY_VERSION_2;
        return [&header.to_le_bytes()[..], &value[4..20]].concat().into();
    }
    [&value[..20], &root.to_le_bytes()[..]].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> IdMap {
        IdMap { userns: std::fs::File::open("/dev/null").unwrap().into(), host_base: 100_000, size: 65_536 }
    }

    #[test]
    fn ids_shift_within_the_range_and_are_nobody_outside() {
        let map = map();
        assert_eq!(map.to_host(0), Some(100_000));
        assert_eq!(map.to_host(65_536), None);
        assert_eq!(map.to_container(100_033), 33);
        assert_eq!(map.to_container(0), 65_534);
        assert_eq!(map.to_container(165_536), 65_534);
    }

    #[test]
    fn only_named_users_and_groups_of_an_acl_shift() {
        let mut acl = vec![2, 0, 0, 0];
        let entry =
            |tag: u16, id: u32| [&tag.to_le_bytes()[..], &6_u16.to_le_bytes(), &id.to_le_bytes()].concat();
        acl.extend(entry(1, u32::MAX));
        acl.extend(entry(2, 100_005));
        let mut expected = acl.clone();
        acl_to_container(&mut acl, &map());
        expected[16..20].copy_from_slice(&5_u32.to_le_bytes());
        assert_eq!(acl, expected);
    }

    #[test]
    fn capabilities_of_the_containers_root_become_plain() {
        let mut value = vec![0_u8; 24];
        value[..4].copy_from_slice(&0x0300_0001_u32.to_le_bytes());
        value[4] = 0x20;
        value[20..].copy_from_slice(&100_000_u32.to_le_bytes());
        let plain = capability_to_container(&value, &map());
        assert_eq!(plain.len(), 20);
        assert_eq!(plain[..5], [1, 0, 0, 2, 0x20]);
        assert_eq!(capability_to_container(&plain, &map()), plain);
    }
}
