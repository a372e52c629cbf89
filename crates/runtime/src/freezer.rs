//! Stopping all processes of a container for a moment, so that nothing changes while its files are looked at.
//!
//! Version 1 has a hierarchy of its own for this (`freezer.state`), version 2 a file in each group (`cgroup.freeze`). Both
//! stop a process where it would return from a system call, so calls that have begun are complete.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::cgroup::Cgroup;

/// How long processes may take to stop. One that waits for a disk stops only when it has been served.
const TIMEOUT: Duration = Duration::from_secs(10);
const SHORTEST_PAUSE: Duration = Duration::from_micros(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(2);

/// Stops and continues a container. Clones are of the same container: it runs again when all who stopped it have said
/// so.
#[derive(Debug, Clone)]
pub struct Freezer {
    id: Arc<str>,
    control: Option<Control>,
    holders: Arc<Mutex<u32>>,
}

/// The file by which a group is stopped.
#[derive(Debug, Clone)]
enum Control {
    /// `freezer.state`.
    Version1(PathBuf),
    /// The directory with `cgroup.freeze` and `cgroup.events`.
    Version2(PathBuf),
}

/// A container could not be stopped or continued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FreezeError {
    /// No hierarchy can do it.
    #[error(
        "the container `{0}` cannot be stopped for a moment: its cgroup has no freezer; mount the cgroup freezer or version 2"
    )]
    Missing(String),
    /// The kernel refused.
    #[error("stopping or continuing the container `{id}`: `{path}`: {source}")]
    Refused {
        /// The container.
        id: String,
        /// The file of the cgroup.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A process did not stop.
    #[error(
        "a process of the container `{id}` did not stop within {seconds} s: it waits for a disk or a device"
    )]
    TimedOut {
        /// The container.
        id: String,
        /// How long was waited.
        seconds: u64,
    },
}

impl Freezer {
    pub(crate) fn new(id: &str, group: &Cgroup) -> Freezer {
        let directories = group.directories();
        let version_1 = directories.iter().map(|directory| directory.join("freezer.state"));
        let control = version_1
            .filter(|file| file.exists())
            .map(Control::Version1)
            .chain(
                directories
                    .iter()
                    .filter(|directory| directory.join("cgroup.freeze").exists())
                    .map(|directory| Control::Version2(directory.clone())),
            )
            .next();
        Freezer { id: id.into(), control, holders: Arc::default() }
    }

    /// Returns when no process of the container runs. Every success must be followed by a [`Freezer::thaw`].
    pub fn freeze(&self) -> Result<(), FreezeError> {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        if *holders == 0 {
            let frozen = self.set(true).and_then(|()| self.wait(TIMEOUT));
            if let Err(error) = frozen {
                // Those that did stop must not stay so.
                if let Err(error) = self.set(false) {
                    tracing::error!(%error, "a container stays stopped");
                }
                return Err(error);
            }
        }
        *holders += 1;
        Ok(())
    }

    /// Lets the container run again, if nobody else has stopped it.
    pub fn thaw(&self) -> Result<(), FreezeError> {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        *holders = holders.saturating_sub(1);
        if *holders == 0 { self.set(false) } else { Ok(()) }
    }

    fn control(&self) -> Result<&Control, FreezeError> {
        self.control.as_ref().ok_or_else(|| FreezeError::Missing(self.id.to_string()))
    }

    fn set(&self, frozen: bool) -> Result<(), FreezeError> {
        let (path, word) = match (self.control()?, frozen) {
            (Control::Version1(file), true) => (file.clone(), "FROZEN"),
            (Control::Version1(file), false) => (file.clone(), "THAWED"),
            (Control::Version2(directory), true) => (directory.join("cgroup.freeze"), "1"),
            (Control::Version2(directory), false) => (directory.join("cgroup.freeze"), "0"),
        };
        match fs::write(&path, word) {
            // A container that has ended needs no thawing.
            Err(error) if !frozen && error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(self.refused(&path)),
        }
    }

    fn wait(&self, limit: Duration) -> Result<(), FreezeError> {
        let deadline = Instant::now() + limit;
        let mut pause = SHORTEST_PAUSE;
        while !self.is_frozen()? {
            if Instant::now() >= deadline {
                return Err(FreezeError::TimedOut { id: self.id.to_string(), seconds: limit.as_secs() });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Ok(())
    }

    fn is_frozen(&self) -> Result<bool, FreezeError> {
        match self.control()? {
            Control::Version1(file) => {
                let state = fs::read_to_string(file).map_err(self.refused(file))?;
                Ok(state.trim() == "FROZEN")
            }
            Control::Version2(directory) => {
                let file = directory.join("cgroup.events");
                let events = fs::read_to_string(&file).map_err(self.refused(&file))?;
                Ok(events.lines().any(|line| line == "frozen 1"))
            }
        }
    }

    fn refused(&self, path: &Path) -> impl FnOnce(io::Error) -> FreezeError {
        let (id, path) = (self.id.to_string(), path.to_owned());
        move |source| FreezeError::Refused { id, path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_without_a_freezer_says_what_is_missing() {
        let freezer = Freezer { id: "task".into(), control: None, holders: Arc::default() };
        let refused = freezer.freeze().unwrap_err();
        assert!(matches!(refused, FreezeError::Missing(_)), "{refused}");
    }

    #[test]
    fn only_the_last_of_several_holders_lets_it_run() {
        let directory = tempfile::tempdir().unwrap();
        let group = |name: &str| directory.path().join(name);
        fs::write(group("cgroup.freeze"), "0").unwrap();
        fs::write(group("cgroup.events"), "populated 1\nfrozen 1\n").unwrap();
        let control = Some(Control::Version2(directory.path().to_owned()));
        let freezer = Freezer { id: "task".into(), control, holders: Arc::default() };
        let other = freezer.clone();
        freezer.freeze().unwrap();
        other.freeze().unwrap();
        freezer.thaw().unwrap();
        assert_eq!(fs::read_to_string(group("cgroup.freeze")).unwrap(), "1");
        other.thaw().unwrap();
        assert_eq!(fs::read_to_string(group("cgroup.freeze")).unwrap(), "0");
    }
}
