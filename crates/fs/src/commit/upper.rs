//! What one entry of an upper directory says about itself.

use std::collections::BTreeMap;
use std::path::Path;

use homeport_content::{Metadata, Timestamp};
use rustix::fs::Stat;
use rustix::io::Errno;

use crate::IdMap;
use crate::error::{FsError, io_error};
use crate::idmap::{acl_to_container, capability_to_container};

const OVERLAY: &[u8] = b"trusted.overlay.";
const ESCAPED_OVERLAY: &[u8] = b"trusted.overlay.overlay.";

/// The name under which an attribute is kept in a layer, where the overlay's own are special.
pub(crate) fn escaped(name: &[u8]) -> Vec<u8> {
    match name.strip_prefix(OVERLAY) {
        Some(rest) => [ESCAPED_OVERLAY, rest].concat(),
        None => name.to_vec(),
    }
}

/// The overlay's marks on an entry, and the attributes that are the user's.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    pub(crate) opaque: Option<Box<[u8]>>,
    pub(crate) redirect: Option<Box<[u8]>>,
    pub(crate) metacopy: bool,
    pub(crate) user: BTreeMap<Box<[u8]>, Box<[u8]>>,
}

/// Reads the attributes of the entry at `path`, without following a link.
pub(crate) fn attributes(path: &Path, map: Option<&IdMap>) -> Result<Attributes, FsError> {
    let mut found = Attributes::default();
    for name in names(path)? {
        let Some(value) = value(path, &name)? else {
            continue;
        };
        if let Some(rest) = name.strip_prefix(ESCAPED_OVERLAY) {
            found.user.insert([OVERLAY, rest].concat().into(), value);
            continue;
        }
        match name.strip_prefix(OVERLAY) {
            Some(b"opaque") => found.opaque = Some(value),
            Some(b"redirect") => found.redirect = Some(value),
            Some(b"metacopy") => found.metacopy = true,
            // Bookkeeping: origin, impure, nlink, uuid, upper, protattr.
            Some(_) => {}
            None => {
                if let Some(value) = users_own(&name, value, map) {
                    found.user.insert(name.into(), value);
                }
            }
        }
    }
    Ok(found)
}

/// The value as the container sees it; `None` for attributes that belong to the host.
fn users_own(name: &[u8], mut value: Box<[u8]>, map: Option<&IdMap>) -> Option<Box<[u8]>> {
    match name {
        b"system.posix_acl_access" | b"system.posix_acl_default" => {
            if let Some(map) = map {
                acl_to_container(&mut value, map);
            }
            Some(value)
        }
        b"security.capability" => Some(match map {
            Some(map) => capability_to_container(&value, map),
            None => value,
        }),
        // Labels and measurements of the host, and XFS's second view of the lists of access.
        b"security.selinux" | b"security.ima" | b"security.evm" => None,
        b"trusted.SGI_ACL_FILE" | b"trusted.SGI_ACL_DEFAULT" => None,
        _ => {
            let kept: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
            kept.iter().any(|prefix| name.starts_with(prefix)).then_some(value)
        }
    }
}

fn names(path: &Path) -> Result<Vec<Vec<u8>>, FsError> {
    let failed = |errno: Errno| io_error("list the attributes of", path)(errno);
    let mut buffer = vec![0; 1024];
    let length = loop {
        match rustix::fs::llistxattr(path, &mut buffer[..]) {
            Ok(length) => break length,
            Err(Errno::RANGE) if buffer.len() < 65_536 => buffer.resize(65_536, 0),
            Err(Errno::OPNOTSUPP) => break 0,
            Err(errno) => return Err(failed(errno)),
        }
    };
    let names = buffer[..length].split(|byte| *byte == 0);
    Ok(names.filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

fn value(path: &Path, name: &[u8]) -> Result<Option<Box<[u8]>>, FsError> {
    let mut buffer = vec![0; 1024];
    loop {
        match rustix::fs::lgetxattr(path, name, &mut buffer[..]) {
            Ok(length) => return Ok(Some(buffer[..length].into())),
            Err(Errno::RANGE) if buffer.len() < 65_536 => buffer.resize(65_536, 0),
            Err(Errno::NODATA) => return Ok(None),
            Err(errno) => return Err(io_error("read an attribute of", path)(errno)),
        }
    }
}

/// Metadata as the container sees it.
pub(crate) fn metadata(stat: &Stat, xattrs: BTreeMap<Box<[u8]>, Box<[u8]>>, map: Option<&IdMap>) -> Metadata {
    let inside = |id: u32| map.map_or(id, |map| map.to_container(id));
    Metadata {
        mode: stat.st_mode & 0o7777,
        uid: inside(stat.st_uid),
        gid: inside(stat.st_gid),
        mtime: Timestamp { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 },
        xattrs,
    }
}
