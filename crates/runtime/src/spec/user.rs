//! Who a container's process runs as, looked up in the image's own files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use oci_spec::runtime::{User, UserBuilder};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

use super::SpecError;

/// Longest account file that is read: the files are the image's, so their size is not to be trusted.
const LONGEST: u64 = 16 << 20;

/// A user or group can't be resolved in an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UserError {
    /// The user has no entry.
    #[error("the user `{0}` isn't in the image's /etc/passwd")]
    NoUser(String),
    /// The group has no entry.
    #[error("the group `{0}` isn't in the image's /etc/group")]
    NoGroup(String),
    /// An account file can't be read.
    #[error("reading `{file}` of the image: {source}")]
    Unreadable {
        /// Path in the image.
        file: &'static str,
        /// What happened.
        source: io::Error,
    },
}

/// A resolved user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    pub(super) home: String,
}

impl Account {
    pub(super) fn to_oci(&self) -> Result<User, SpecError> {
        Ok(UserBuilder::default().uid(self.uid).gid(self.gid).additional_gids(self.groups.clone()).build()?)
    }
}

/// Resolves `user[:group]` by the account files below `rootfs`.
pub(super) fn resolve(rootfs: &Path, wanted: &str) -> Result<Account, UserError> {
    let passwd = read_within(rootfs, "etc/passwd")
        .map_err(|source| UserError::Unreadable { file: "/etc/passwd", source })?;
    let group = read_within(rootfs, "etc/group")
        .map_err(|source| UserError::Unreadable { file: "/etc/group", source })?;
    lookup(&passwd, &group, wanted)
}

/// An empty text when there is no such file. Links are followed as the container would follow them.
fn read_within(rootfs: &Path, file: &str) -> io::Result<String> {
    let root = File::from(rustix::fs::openat(
        CWD,
        rootfs,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?);
    let opened = openat2(
        &root,
        file,
        // A pipe at this place must not block.
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    );
    let file = match opened {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(errno.into()),
    };
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn lookup(passwd: &str, group: &str, wanted: &str) -> Result<Account, UserError> {
    let (user, wanted_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (wanted, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    // As Docker does: a name that looks like a number is one only when no entry has that name.
    let number = user.parse::<u32>().ok();
    let entry = entries(passwd)
        .find(|fields| fields.first() == Some(&user))
        .or_else(|| entries(passwd).find(|fields| number.is_some() && field(fields, 2) == number));
    let uid = entry
        .as_ref()
        .and_then(|fields| field(fields, 2))
        .or(number)
        .ok_or_else(|| UserError::NoUser(user.to_owned()))?;
    let home = entry
        .as_ref()
        .and_then(|fields| fields.get(5))
        .filter(|home| home.starts_with('/'))
        .map_or_else(|| "/".to_owned(), |home| (*home).to_owned());
    if let Some(wanted_group) = wanted_group {
        let gid = entries(group)
            .find(|fields| fields.first() == Some(&wanted_group))
            .and_then(|fields| field(&fields, 2))
            .or_else(|| wanted_group.parse().ok())
            .ok_or_else(|| UserError::NoGroup(wanted_group.to_owned()))?;
        return Ok(Account { uid, gid, groups: Vec::new(), home });
    }
    let name = entry.as_ref().and_then(|fields| fields.first().copied());
    let groups = entries(group)
        .filter(|fields| {
            name.is_some_and(|name| {
                fields.get(3).is_some_and(|members| members.split(',').any(|member| member == name))
            })
        })
        .filter_map(|fields| field(&fields, 2))
        .collect();
    let gid = entry.as_ref().and_then(|fields| field(fields, 3)).unwrap_or(0);
    Ok(Account { uid, gid, groups, home })
}

fn entries(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .map(|line| line.trim().split(':').collect())
}

fn field(fields: &[&str], index: usize) -> Option<u32> {
    fields.get(index)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1001:1002:App:/home/app:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nvideo:x:44:other,app\nwheel:x:10:root\nstaff:x:50:\n";

    #[test]
    fn a_name_brings_its_group_its_groups_and_its_home() {
        let account = lookup(PASSWD, GROUP, "app").unwrap();
        assert_eq!((account.uid, account.gid), (1001, 1002));
        assert_eq!(account.groups, [44]);
        assert_eq!(account.home, "/home/app");
        assert_eq!(lookup(PASSWD, GROUP, "1001").unwrap(), account);
    }

    #[test]
    fn a_number_without_entry_has_roots_group_and_no_home() {
        let account = lookup(PASSWD, GROUP, "4711").unwrap();
        assert_eq!((account.uid, account.gid, account.home.as_str()), (4711, 0, "/"));
        assert_eq!(lookup("", "", "").unwrap().uid, 0);
    }

    #[test]
    fn a_group_overrides_and_an_unknown_name_is_an_error() {
        assert_eq!(lookup(PASSWD, GROUP, "app:staff").unwrap().gid, 50);
        assert_eq!(lookup(PASSWD, GROUP, "app:77").unwrap().gid, 77);
        assert!(matches!(lookup(PASSWD, GROUP, "nobody"), Err(UserError::NoUser(name)) if name == "nobody"));
        assert!(matches!(lookup(PASSWD, GROUP, "app:none"), Err(UserError::NoGroup(name)) if name == "none"));
    }

    #[test]
    fn a_link_out_of_the_root_stays_inside() {
        let rootfs = tempfile::tempdir().unwrap();
        let etc = rootfs.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        std::os::unix::fs::symlink("/../../etc/passwd.inside", etc.join("passwd")).unwrap();
        std::fs::write(etc.join("passwd.inside"), "me:x:7:8::/me:/bin/sh\n").unwrap();
        assert_eq!(resolve(rootfs.path(), "me").unwrap().uid, 7);
    }
}
