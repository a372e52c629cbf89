//! Control groups: where a container's are, who is in them, how they end, what they say of memory.
//!
//! The container runtime makes the groups and sets the limits. This module finds the same directories in every hierarchy
//! of the machine (version 1, version 2, or both side by side). Membership in a group is what identifies a process as
//! ours: process ids are reused, groups with an instance's tag in their name are not.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::probe::CgroupVersion;

/// How long killed processes may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
const KILL_INTERVAL: Duration = Duration::from_millis(4);

/// A control group could not be found, emptied or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// The machine's mounts could not be read.
    #[error("reading `/proc/self/mountinfo`: {0}")]
    Mounts(io::Error),
    /// No hierarchy is mounted.
    #[error("no cgroup hierarchy is mounted: mount one at /sys/fs/cgroup")]
    NotMounted,
    /// A directory of the group could not be read.
    #[error("reading the cgroup `{path}`: {source}")]
    Read {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A directory of the group could not be removed.
    #[error("removing the cgroup `{path}`: {source}")]
    Remove {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Processes survived being killed.
    #[error("{count} processes of the cgroup `{path}` are still there {seconds} s after they were killed")]
    Survivors {
        /// A directory of the group.
        path: PathBuf,
        /// How many are left.
        count: usize,
        /// How long was waited.
        seconds: u64,
    },
}

/// The mounted hierarchies of this machine.
#[derive(Debug, Clone)]
pub(crate) struct Hierarchies {
    mounts: Vec<PathBuf>,
    has_v1: bool,
    has_v2: bool,
    /// Controllers of the version 1 hierarchies.
    controllers: Vec<String>,
}

impl Hierarchies {
    pub(crate) fn discover() -> Result<Hierarchies, CgroupError> {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").map_err(CgroupError::Mounts)?;
        let found = Hierarchies::from_mountinfo(&mountinfo);
        if found.mounts.is_empty() {
            return Err(CgroupError::NotMounted);
        }
        Ok(found)
    }

    fn from_mountinfo(mountinfo: &str) -> Hierarchies {
        let (mut mounts, mut controllers) = (Vec::new(), Vec::new());
        let (mut has_v1, mut has_v2) = (false, false);
        for line in mountinfo.lines() {
            let Some((fields, tail)) = line.split_once(" - ") else {
                continue;
            };
            match tail.split(' ').next() {
                Some("cgroup") => {
                    has_v1 = true;
                    let options = tail.rsplit(' ').next().unwrap_or_default();
                    controllers.extend(options.split(',').map(str::to_owned));
                }
                Some("cgroup2") => has_v2 = true,
                _ => continue,
            }
            if let Some(target) = fields.split(' ').nth(4) {
                mounts.push(PathBuf::from(target));
            }
        }
        // The same hierarchy may be mounted elsewhere too, for containers of others.
        mounts.retain(|mount| mount.starts_with("/sys/fs/cgroup"));
        mounts.sort();
        mounts.dedup();
        Hierarchies { mounts, has_v1, has_v2, controllers }
    }

    /// Whether version 2 alone is in use.
    pub(crate) fn unified(&self) -> bool {
        self.has_v2 && !self.has_v1
    }

    pub(crate) fn version(&self) -> CgroupVersion {
        match (self.has_v1, self.has_v2) {
            (true, true) => CgroupVersion::Hybrid,
            (true, false) => CgroupVersion::V1,
            (false, true) => CgroupVersion::V2,
            (false, false) => CgroupVersion::Missing,
        }
    }

    /// Whether limits of this kind can be set.
    pub(crate) fn has_controller(&self, controller: &str) -> bool {
        self.controllers.iter().any(|known| known == controller)
            || self.mounts.iter().any(|mount| {
                fs::read_to_string(mount.join("cgroup.controllers"))
                    .is_ok_and(|known| known.split_whitespace().any(|known| known == controller))
            })
    }

    /// Whether processes of a group can be stopped: by a hierarchy for it, or by any group of version 2.
    pub(crate) fn can_freeze(&self) -> bool {
        self.has_v2 || self.has_controller("freezer")
    }

    /// Whether limits for swap can be set.
    pub(crate) fn limits_swap(&self) -> bool {
        // The files exist only where the kernel accounts for swap; the root group of version 2 has none at all.
        if self.unified() {
            return Path::new("/proc/swaps").exists();
        }
        self.mounts.iter().any(|mount| mount.join("memory.memsw.limit_in_bytes").exists())
    }

    /// The group at `path`, relative to each mount, wherever it exists.
    pub(crate) fn group(&self, path: &str) -> Cgroup {
        Cgroup {
            directories: self
                .mounts
                .iter()
                .map(|mount| mount.join(path))
                .filter(|directory| directory.is_dir())
                .collect(),
        }
    }
}

/// A group, by its directory in each hierarchy that has it.
#[derive(Debug)]
pub(crate) struct Cgroup {
    directories: Vec<PathBuf>,
}

impl Cgroup {
    /// Its directories, one for each hierarchy that has it.
    pub(crate) fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// Ids of the processes in the group and in groups below it.
    pub(crate) fn processes(&self) -> Result<Vec<u32>, CgroupError> {
        let mut members = Vec::new();
        for directory in &self.directories {
            collect_members(directory, &mut members)?;
        }
        let mut ids: Vec<u32> = members.into_iter().filter_map(|(pid, _)| u32::try_from(pid).ok()).collect();
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// How many processes the kernel killed in this group because memory ran out.
    pub(crate) fn memory_kills(&self) -> u64 {
        self.directories
            .iter()
            .filter_map(|directory| {
                // Version 2 first: a version 1 directory has no such file.
                fs::read_to_string(directory.join("memory.events"))
                    .or_else(|_| fs::read_to_string(directory.join("memory.oom_control")))
                    .ok()
            })
            .filter_map(|events| counter(&events, "oom_kill"))
            .max()
            .unwrap_or(0)
    }

    /// Kills every process of the group and of the groups below it, waits until they are gone, and removes the
    /// directories. Returns how many processes there were at first.
    pub(crate) fn end(&self) -> Result<usize, CgroupError> {
        let killed = self.kill()?;
        for directory in &self.directories {
            remove_tree(directory)?;
        }
        Ok(killed)
    }

    fn kill(&self) -> Result<usize, CgroupError> {
        let deadline = Instant::now() + KILL_TIMEOUT;
        let mut at_first = None;
        loop {
            let mut members = Vec::new();
            for directory in &self.directories {
                collect_members(directory, &mut members)?;
            }
            members.sort_unstable();
            members.dedup_by_key(|(pid, _)| *pid);
            at_first.get_or_insert(members.len());
            let Some((_, path)) = members.first() else {
                return Ok(at_first.unwrap_or(0));
            };
            if Instant::now() >= deadline {
                return Err(CgroupError::Survivors {
                    path: path.clone(),
                    count: members.len(),
                    seconds: KILL_TIMEOUT.as_secs(),
                });
            }
            // `cgroup.kill` of version 2 leaves no gap for a process that forks faster than it is killed.
            for directory in &self.directories {
                let _ = fs::write(directory.join("cgroup.kill"), "1");
            }
            for (pid, directory) in &members {
                kill_member(*pid, directory);
            }
            // A frozen process of version 1 dies only when thawed, and does nothing else first because the signal is
            // there already. Neither file is everywhere.
            for directory in &self.directories {
                thaw_tree(directory)?;
            }
            thread::sleep(KILL_INTERVAL);
        }
    }
}

/// Kills a process if it is still a member: between reading its id and opening it, the id may have passed to another.
fn kill_member(pid: i32, directory: &Path) {
    let Some(target) = Pid::from_raw(pid) else {
        return;
    };
    let Ok(handle) = pidfd_open(target, PidfdFlags::empty()) else {
        return;
    };
    let still_member = members_of(directory).is_ok_and(|members| members.contains(&pid));
    if still_member {
        // The only failure is that it ended on its own.
        let _ = pidfd_send_signal(&handle, Signal::KILL);
    }
}

fn members_of(directory: &Path) -> Result<Vec<i32>, CgroupError> {
    match fs::read_to_string(directory.join("cgroup.procs")) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        Err(error) if gone(&error) => Ok(Vec::new()),
        Err(source) => Err(CgroupError::Read { path: directory.to_owned(), source }),
    }
}

fn collect_members(directory: &Path, members: &mut Vec<(i32, PathBuf)>) -> Result<(), CgroupError> {
    for pid in members_of(directory)? {
        members.push((pid, directory.to_owned()));
    }
    for child in children(directory)? {
        collect_members(&child, members)?;
    }
    Ok(())
}

fn children(directory: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let read = |source| CgroupError::Read { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(read(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(read)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Thawing a group does not thaw the groups below it that were frozen themselves.
fn thaw_tree(directory: &Path) -> Result<(), CgroupError> {
    let state = directory.join("freezer.state");
    if state.exists() {
        let _ = fs::write(state, "THAWED");
        for child in children(directory)? {
            thaw_tree(&child)?;
        }
    }
    Ok(())
}

fn remove_tree(directory: &Path) -> Result<(), CgroupError> {
    for child in children(directory)? {
        remove_tree(&child)?;
    }
    let deadline = Instant::now() + KILL_TIMEOUT;
    loop {
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if gone(&error) => return Ok(()),
            // The kernel takes a moment to forget the last process.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                thread::sleep(KILL_INTERVAL);
            }
            Err(source) => {
                return Err(CgroupError::Remove { path: directory.to_owned(), source });
            }
        }
    }
}

fn gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// The value of `name` in a file of `name value` lines.
fn counter(events: &str, name: &str) -> Option<u64> {
    events.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        if key == name { value.trim().parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found_and_foreign_mounts_left_out() {
        let found = Hierarchies::from_mountinfo(
            "30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
             31 30 0:27 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n\
             32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
             33 24 0:28 / /mnt/elsewhere rw - cgroup2 cgroup2 rw\n",
        );
        assert_eq!(found.mounts, [Path::new("/sys/fs/cgroup/memory"), Path::new("/sys/fs/cgroup/unified")]);
        assert_eq!((found.unified(), found.version()), (false, CgroupVersion::Hybrid));
        assert!(found.has_controller("memory") && !found.has_controller("pids"));
        let unified = Hierarchies::from_mountinfo("30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        assert_eq!((unified.unified(), unified.version()), (true, CgroupVersion::V2));
    }

    #[test]
    fn kills_are_counted_in_the_files_of_both_versions() {
        assert_eq!(
            counter("low 0\nhigh 0\nmax 12\noom 1\noom_kill 3\noom_group_kill 0\n", "oom_kill"),
            Some(3)
        );
        assert_eq!(counter("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "oom_kill"), Some(2));
    }
}
