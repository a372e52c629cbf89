//! Overlays from layers: the options of the mount, and the ways in which kernels take layers.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::error::{FsError, io_error};
use crate::kernel::Context;

/// How this kernel is told of the layers of an overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerInterface {
    /// `lowerdir+` and `datadir+` by descriptor, also of mounts that are attached nowhere
    /// (Linux 6.15).
    Descriptors,
    /// `lowerdir+` and `datadir+` by path, of attached mounts (Linux 6.8).
    Paths,
    /// One `lowerdir` with all of them, of attached mounts.
    List,
}

impl LayerInterface {
    /// Every interface, newest first.
    pub(crate) const ALL: [LayerInterface; 3] =
        [LayerInterface::Descriptors, LayerInterface::Paths, LayerInterface::List];

    /// Whether layers must be in the mount table.
    pub(crate) fn needs_attached(self) -> bool {
        self != LayerInterface::Descriptors
    }
}

/// What an overlay consists of.
pub(crate) struct Overlay<'a> {
    /// Roots of the layers, uppermost first.
    pub(crate) lowers: Vec<BorrowedFd<'a>>,
    /// Directories of objects, for layers that redirect to them. The first that has one counts.
    pub(crate) data: Vec<BorrowedFd<'a>>,
    /// Where changes go; without it the overlay is read-only.
    pub(crate) writable: Option<Writable<'a>>,
}

/// The directories that take the changes made through an overlay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writable<'a> {
    pub(crate) upper: &'a Path,
    pub(crate) work: &'a Path,
    /// What is promised of changes that are to outlive the mount; `None` for those that need not.
    pub(crate) lasting: Option<Lasting>,
}

/// Promises of an overlay whose changes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lasting {
    /// Names of one file stay so when it is changed, and an upper directory that is in use, or was used with
    /// other layers, is refused.
    Indexed,
    /// Where the kernel refuses that.
    Plain,
    /// As the first, but nothing is written through it: it is only to be seen whether it is refused. Without the sync of
    /// the whole file system that ends a mount.
    Asked,
}

fn by_descriptor(fd: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Options are limited to 255 bytes and some characters have a meaning; such paths are given by
/// a descriptor, others as they are, for those who read the mount table.
fn option_path(path: &Path, fd: &File) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    match path.to_str() {
        Some(text) if text.len() < 250 && text.bytes().all(plain) => text.to_owned(),
        _ => by_descriptor(fd),
    }
}

impl Overlay<'_> {
    /// Makes the overlay, attached nowhere. `target` is for messages.
    pub(crate) fn mount(&self, interface: LayerInterface, target: &str) -> Result<OwnedFd, FsError> {
        let context = Context::open("overlay", target)?;
        context.string("source", "homeport")?;
        match interface {
            LayerInterface::Descriptors => {
                for lower in &self.lowers {
                    context.descriptor("lowerdir+", *lower)?;
                }
                for data in &self.data {
                    context.descriptor("datadir+", *data)?;
                }
            }
            LayerInterface::Paths => {
                for lower in &self.lowers {
                    context.string("lowerdir+", &by_descriptor(lower))?;
                }
                for data in &self.data {
                    context.string("datadir+", &by_descriptor(data))?;
                }
            }
            LayerInterface::List => {
                let lowers: Vec<String> = self.lowers.iter().map(by_descriptor).collect();
                let mut list = lowers.join(":");
                for data in &self.data {
                    list = format!("{list}::{}", by_descriptor(data));
                }
                context.string("lowerdir", &list)?;
            }
        }
        // Everything is stated, because kernels are built with other defaults.
        context.string("metacopy", "on")?;
        context.string("xino", "on")?;
        let Some(Writable { upper, work, lasting }) = self.writable else {
            context.string("index", "off")?;
            context.string("redirect_dir", "follow")?;
            return context.mount(true);
        };
        let indexed = matches!(lasting, Some(Lasting::Indexed | Lasting::Asked));
        context.string("index", if indexed { "on" } else { "off" })?;
        context.string("redirect_dir", "on")?;
        let upper_file = File::open(upper).map_err(io_error("open", upper))?;
        let work_file = File::open(work).map_err(io_error("open", work))?;
        context.string("upperdir", &option_path(upper, &upper_file))?;
        context.string("workdir", &option_path(work, &work_file))?;
        if matches!(lasting, None | Some(Lasting::Asked)) {
            // Such a layer does not outlive its process, and a commit syncs what it takes, so the
            // syncs that package managers make for every file are of no use here.
            context.flag("volatile")?;
        }
        context.mount(false)
    }
}

/// Opens a directory as a layer.
pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd, FsError> {
    let file = File::open(path).map_err(io_error("open", path))?;
    Ok(file.into())
}
