//! `sync MOUNTPOINT` in a container: it returns when the Volume there is committed.
//!
//! The program opens the directory, calls `fsync` on it and ends; no file system tells anybody of the call. But the kernel
//! asks before it lets a process open a directory that is watched. A process by the name of `sync` is stopped there, and
//! goes on when control has what the container had written. If that fails it is killed, so that whoever waits for it
//! doesn't take its end for a success.
//!
//! Everybody else goes on at once. Other ways to the same call (`fsync` of a directory in a program, `sync` without a
//! path) are not noticed; what they would commit is committed in the background.

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use homeport_proto::worker::TakeReason;
use homeport_runtime::Container;
use nix::sys::fanotify::{
    EventFFlags, Fanotify, FanotifyEvent, FanotifyResponse, InitFlags, MarkFlags, MaskFlags, Response,
};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::lock;
use super::volume::Volume;
use crate::reports::Reports;

/// How long the program may wait for control.
const PATIENCE: Duration = Duration::from_secs(60);
const PROGRAM: &str = "sync";

/// The directories at which Volumes are mounted in containers.
#[derive(Debug)]
pub(super) struct SyncWatch {
    /// None where the kernel lacks it.
    group: Option<Fanotify>,
    roots: Mutex<HashMap<Inode, Weak<Volume>>>,
}

type Inode = (u64, u64);

/// A process that was stopped.
type Stopped = Option<OwnedFd>;

impl SyncWatch {
    pub(super) fn new() -> Self {
        let flags = InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC | InitFlags::FAN_NONBLOCK;
        let files = EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC;
        let group = Fanotify::init(flags, files)
            .inspect_err(|error| tracing::warn!(%error, "`sync` in containers won't commit Volumes"));
        Self { group: group.ok(), roots: Mutex::default() }
    }

    /// Watches the places at which a container sees a Volume now. What is mounted there changes with each commit and
    /// reload.
    pub(super) fn watch(&self, volume: &Arc<Volume>, container: &Container, places: &[PathBuf]) {
        let Some(group) = &self.group else {
            return;
        };
        let mut found = Vec::new();
        for place in places {
            match watch_place(group, container, place) {
                Ok(inode) => found.extend(inode),
                // It ended meanwhile, or has hidden the place from itself.
                Err(error) => {
                    tracing::debug!(%error, place = %place.display(), "`sync` is not noticed there")
                }
            }
        }
        let mut roots = lock(&self.roots);
        roots.retain(|_, other| other.upgrade().is_some_and(|other| !Arc::ptr_eq(&other, volume)));
        roots.extend(found.into_iter().map(|inode| (inode, Arc::downgrade(volume))));
    }

    /// Answers the kernel.
    pub(super) async fn answer(&self, reports: &Reports) {
        let Some(group) = &self.group else {
            return std::future::pending().await;
        };
        // SAFETY: the group is borrowed by the registration, so its descriptor stays open and the same.
        let registered = unsafe { AsyncFd::register_with_interest(group.as_fd(), Interest::READABLE) };
        let Ok(readable) = registered else {
            return std::future::pending().await;
        };
        loop {
            let Ok(mut ready) = readable.readable().await else {
                return std::future::pending().await;
            };
            match group.read_events() {
                Ok(events) => events.into_iter().for_each(|event| self.answer_one(group, event, reports)),
                Err(nix::Error::EAGAIN) => ready.clear_ready(),
                Err(error) => {
                    tracing::warn!(%error, "cannot hear of `sync` in containers");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Never waits: the process that opened the directory does.
    fn answer_one(&self, group: &Fanotify, event: FanotifyEvent, reports: &Reports) {
        let Some(directory) = event.fd() else {
            return;
        };
        let volume = rustix::fs::fstat(directory)
            .ok()
            .and_then(|stat| lock(&self.roots).get(&(stat.st_dev, stat.st_ino)).and_then(Weak::upgrade));
        let stopped = volume.as_ref().and_then(|_| stop_if_sync(event.pid()));
        if let Err(error) = group.write_response(FanotifyResponse::new(directory, Response::FAN_ALLOW)) {
            tracing::warn!(%error, "a process can't be let go on");
        }
        // Its descriptor is a use of the Volume.
        drop(event);
        if let (Some(volume), Some(process)) = (volume, stopped) {
            let reports = reports.clone();
            tokio::spawn(async move { commit(&volume, &reports, process).await });
        }
    }
}

async fn commit(volume: &Arc<Volume>, reports: &Reports, process: Stopped) {
    let kept = volume.take(reports, TakeReason::Asked, "").await
        && tokio::time::timeout(PATIENCE, volume.settled()).await.is_ok();
    if let Some(process) = process {
        let signal = if kept { Signal::CONT } else { Signal::KILL };
        // The only failure is that it ended on its own.
        let _ = pidfd_send_signal(process, signal);
    }
}

/// Marks what a container sees at a place. None when that is no directory of an overlay.
fn watch_place(
    group: &Fanotify,
    container: &Container,
    place: &Path,
) -> Result<Option<Inode>, rustix::io::Errno> {
    let Some(process) = container.processes().first().copied() else {
        return Ok(None);
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, format!("/proc/{process}/root"), flags, Mode::empty())?;
    // What links lie on the way is up to the container.
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let directory = openat2(&root, place, flags, Mode::empty(), resolve)?;
    if rustix::fs::fstatfs(&directory)?.f_type != libc::OVERLAYFS_SUPER_MAGIC {
        return Ok(None);
    }
    let mask = MaskFlags::FAN_OPEN_PERM | MaskFlags::FAN_ONDIR;
    let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
    group
        .mark(MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_ONLYDIR, mask, CWD, Some(path.as_str()))
        .map_err(|error| rustix::io::Errno::from_raw_os_error(error as i32))?;
    let stat = rustix::fs::fstat(&directory)?;
    Ok(Some((stat.st_dev, stat.st_ino)))
}

/// Stops a process if it is the program `sync`. Some(None) is one that may not be stopped, because somebody sits before
/// it and would be told.
fn stop_if_sync(pid: i32) -> Option<Stopped> {
    if fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end() != PROGRAM {
        return None;
    }
    if has_terminal(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?) {
        return Some(None);
    }
    // The process waits for the kernel's answer to its call, so the id is still its own.
    let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    pidfd_send_signal(&process, Signal::STOP).ok()?;
    Some(Some(process))
}

/// Whether a line of `/proc/PID/stat` names a controlling terminal.
fn has_terminal(stat: &str) -> bool {
    // The name of the program, in parentheses, may have any characters.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace().nth(4).is_some_and(|terminal| terminal != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_is_found_behind_any_name() {
        assert!(!has_terminal("17 (sync) R 1 17 17 0 -1 4194304"));
        assert!(has_terminal("17 (sync) R 1 17 17 34816 17 4194304"));
        assert!(has_terminal("17 (a ) 0 0 0 0 (b) R 1 17 17 34816 17 4194304"));
        assert!(!has_terminal(""));
    }
}
