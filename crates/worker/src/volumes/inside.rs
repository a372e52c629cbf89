//! A running container, as the file system wants to see it.

use std::io;
use std::os::fd::AsFd;

use homeport_fs::Inside;
use homeport_runtime::Container;

/// Does something inside a running container; `None` when it has ended.
pub(super) fn look_inside<T>(
    container: &Container,
    look: impl FnOnce(Inside<'_>) -> T,
) -> io::Result<Option<T>> {
    let Some(namespace) = container.mount_namespace().map_err(io::Error::other)? else {
        return Ok(None);
    };
    let processes = || container.processes();
    let inside = Inside {
        mount_namespace: namespace.as_fd(),
        processes: &processes,
        freezer: &Freezer(container.freezer()),
    };
    Ok(Some(look(inside)))
}

struct Freezer<'a>(&'a homeport_runtime::Freezer);

impl homeport_fs::Freezer for Freezer<'_> {
    fn freeze(&self) -> io::Result<()> {
        self.0.freeze().map_err(io::Error::other)
    }

    fn thaw(&self) -> io::Result<()> {
        self.0.thaw().map_err(io::Error::other)
    }
}
