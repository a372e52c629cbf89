//! What the kernel and the file system can do, found out by doing it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use homeport_content::{Digest, FileContent, Leaf, LeafKind, Metadata, Tree};
use rustix::fs::{CWD, Mode, OFlags, ioctl_ficlone, openat};
use rustix::mount::{MoveMountFlags, move_mount};

use crate::error::{FsError, io_error};
use crate::kernel::{self, LayerMount};
use crate::overlay::{LayerInterface, Overlay, open_directory};
use crate::{Backend, BackendChoice, erofs};

/// One thing that a machine can or cannot do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capability {
    /// Whether it works.
    pub available: bool,
    /// What was seen: why it does not work, or how it does.
    pub detail: String,
}

impl Capability {
    fn of<T>(result: &Result<T, FsError>, how: &str) -> Capability {
        match result {
            Ok(_) => Capability { available: true, detail: how.to_owned() },
            Err(error) => Capability { available: false, detail: chain(error) },
        }
    }
}

/// What matters to mounting snapshots on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// EROFS images mount straight from files.
    pub file_backed_erofs: Capability,
    /// Overlays take layers that only hold data.
    pub data_only_layers: Capability,
    /// Lower layers can be id-mapped, for containers with their own user namespaces.
    pub id_mapped_layers: Capability,
    /// The file system can share blocks between files, which makes opening a large committed
    /// file for writing quick.
    pub reflink: Capability,
    /// A mount can be put beneath another one, so that a Volume shows another version with no empty moment.
    pub mounts_beneath: Capability,
    /// What [`BackendChoice::Auto`] gives, if anything works.
    pub backend: Option<Backend>,
}

/// Finds out what can be done with data in `dir`, by small real mounts that are gone afterwards.
pub fn probe(dir: &Path) -> Result<Capabilities, FsError> {
    let scratch = tempfile::Builder::new()
        .prefix("probe-")
        .tempdir_in(dir)
        .map_err(io_error("make a directory in", dir))?;
    let dir = scratch.path();
    let sample = Sample::write(dir)?;
    let image = erofs::mount_image(&sample.image);
    let data = LayerInterface::ALL.map(|interface| sample.try_erofs(dir, interface, None));
    let linked = LayerInterface::ALL.map(|interface| try_linked(dir, interface));
    let erofs_works = data.iter().any(Result::is_ok);
    let mapped = namespace(100_000, 65_536).and_then(|namespace| {
        if !erofs_works {
            return try_mapping_directory(dir, namespace.as_fd());
        }
        let tries = LayerInterface::ALL.map(|interface| sample.try_erofs(dir, interface, Some(&namespace)));
        first(tries).map(|_| ())
    });
    let reflink = try_reflink(dir);
    let beneath = try_beneath(dir);
    let backend = match (erofs_works, linked.iter().any(Result::is_ok)) {
        (true, _) => Some(Backend::Erofs),
        (false, true) => Some(Backend::Linked),
        (false, false) => None,
    };
    Ok(Capabilities {
        file_backed_erofs: Capability::of(&image, "a small image was mounted"),
        data_only_layers: Capability::of(&first(data), "a redirected file was read"),
        id_mapped_layers: Capability::of(&mapped, "a layer was mounted with mapped ids"),
        reflink: Capability::of(&reflink, "a file was cloned"),
        mounts_beneath: Capability::of(&beneath, "a mount was replaced from beneath"),
        backend,
    })
}

/// Picks the backend, and the way in which the kernel is told of layers.
pub(crate) fn choose(dir: &Path, choice: BackendChoice) -> Result<(Backend, LayerInterface), FsError> {
    let scratch = tempfile::Builder::new()
        .prefix("probe-")
        .tempdir_in(dir.join("scratch"))
        .map_err(io_error("make a directory in", dir))?;
    let mut reasons = Vec::new();
    if choice != BackendChoice::Linked {
        let sample = Sample::write(scratch.path())?;
        for interface in LayerInterface::ALL {
            match sample.try_erofs(scratch.path(), interface, None) {
                Ok(()) => return Ok((Backend::Erofs, interface)),
                Err(error) => reasons.push(chain(&error)),
            }
        }
        tracing::warn!(reason = reasons.join("; "), "EROFS snapshots do not work here");
    }
    if choice != BackendChoice::Erofs {
        for interface in LayerInterface::ALL {
            match try_linked(scratch.path(), interface) {
                Ok(()) => return Ok((Backend::Linked, interface)),
                Err(error) => reasons.push(chain(&error)),
            }
        }
    }
    Err(FsError::NoBackend(reasons.join("; ")))
}

const SAMPLE: [u8; 600] = [b'h'; 600];

/// A snapshot of one file that is kept as an object.
struct Sample {
    image: std::path::PathBuf,
    objects: std::path::PathBuf,
}

impl Sample {
    fn write(dir: &Path) -> Result<Sample, FsError> {
        let digest = Digest::of(&SAMPLE);
        let mut tree = Tree::default();
        let id = tree.push_leaf(Leaf {
            metadata: Metadata::with_mode(0o644),
            kind: LeafKind::File(FileContent::Object { digest, size: SAMPLE.len() as u64 }),
        });
        let named = homeport_content::Entry::Leaf(id);
        tree.root.entries.insert(b"sample".as_slice().into(), named);
        let objects = dir.join("objects");
        let hex = digest.to_hex();
        let (shard, rest) = hex.split_at(2);
        let image = dir.join("image");
        let written = fs::create_dir_all(objects.join(shard))
            .and_then(|()| fs::write(objects.join(shard).join(rest), SAMPLE));
        written.map_err(io_error("write below", &objects))?;
        fs::write(&image, erofs::image_of(&tree.id(), &tree)?).map_err(io_error("write", &image))?;
        Ok(Sample { image, objects })
    }

    fn try_erofs(
        &self,
        dir: &Path,
        interface: LayerInterface,
        namespace: Option<&OwnedFd>,
    ) -> Result<(), FsError> {
        let places = interface.needs_attached().then(|| dir.join("mounts"));
        let target = self.image.display().to_string();
        let mut lower = LayerMount::new(erofs::mount_image(&self.image)?, places.as_deref())?;
        if let Some(namespace) = namespace {
            let mapped = kernel::id_mapped(lower.fd(), namespace.as_fd(), &target)?;
            lower = LayerMount::new(mapped, places.as_deref())?;
        }
        let objects = open_directory(&self.objects)?;
        let overlay = Overlay { lowers: vec![lower.fd()], data: vec![objects.as_fd()], writable: None };
        let mount = overlay.mount(interface, &target)?;
        let mut file = open_in(mount.as_fd(), "sample", dir)?;
        let mut bytes = Vec::new();
        let read = file.read_to_end(&mut bytes);
        read.map_err(io_error("read through a mount of", &self.image))?;
        let owner = file.metadata().map_err(io_error("look at", dir))?.uid();
        let expected = if namespace.is_some() { 100_000 } else { 0 };
        if bytes != SAMPLE || owner != expected {
            let error = io::Error::other("the file has other bytes or another owner there");
            return Err(io_error("read through a mount of", &self.image)(error));
        }
        Ok(())
    }
}

fn open_in(mount: BorrowedFd<'_>, name: &str, dir: &Path) -> Result<File, FsError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let fd = openat(mount, name, flags, Mode::empty()).map_err(io_error("open a file in a mount of", dir))?;
    Ok(File::from(fd))
}

fn try_linked(dir: &Path, interface: LayerInterface) -> Result<(), FsError> {
    let (lower, empty) = (dir.join("lower"), dir.join("empty"));
    for path in [&lower, &empty] {
        fs::create_dir_all(path).map_err(io_error("make the directory", path))?;
    }
    let sample = lower.join("sample");
    fs::write(&sample, SAMPLE).map_err(io_error("write", &sample))?;
    let places = interface.needs_attached().then(|| dir.join("mounts"));
    let layer = LayerMount::new(kernel::bind(&lower)?, places.as_deref())?;
    let empty = open_directory(&empty)?;
    let overlay = Overlay { lowers: vec![layer.fd(), empty.as_fd()], data: Vec::new(), writable: None };
    let mount = overlay.mount(interface, &lower.display().to_string())?;
    open_in(mount.as_fd(), "sample", &lower).map(|_| ())
}

fn try_mapping_directory(dir: &Path, namespace: BorrowedFd<'_>) -> Result<(), FsError> {
    let bound = kernel::bind(dir)?;
    let target = dir.display().to_string();
    kernel::id_mapped(bound.as_fd(), namespace, &target).map(|_| ())
}

fn try_reflink(dir: &Path) -> Result<(), FsError> {
    let (from, to) = (dir.join("from"), dir.join("to"));
    let mut source = File::create_new(&from).map_err(io_error("create", &from))?;
    source.write_all(&SAMPLE).map_err(io_error("write", &from))?;
    let copy = File::create_new(&to).map_err(io_error("create", &to))?;
    ioctl_ficlone(&copy, &source).map_err(io_error("clone", &from))
}

/// Replaces a mount by another one as a reload of a Volume does.
fn try_beneath(dir: &Path) -> Result<(), FsError> {
    let (old, new, place) = (dir.join("old"), dir.join("new"), dir.join("place"));
    for path in [&old, &new, &place] {
        fs::create_dir_all(path).map_err(io_error("make the directory", path))?;
    }
    let seen = new.join("seen");
    fs::write(&seen, "").map_err(io_error("write", &seen))?;
    kernel::attach(kernel::bind(&old)?.as_fd(), &place)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_BENEATH;
    let moved = kernel::bind(&new).and_then(|new| {
        move_mount(new.as_fd(), "", CWD, &place, flags).map_err(io_error("mount beneath", &place))
    });
    let taken_off = kernel::detach(&place).map_err(io_error("take the mount off", &place));
    moved?;
    let replaced = place.join("seen").exists();
    let cleared = kernel::detach(&place).map_err(io_error("take the mount off", &place));
    taken_off.and(cleared)?;
    if replaced {
        return Ok(());
    }
    Err(io_error("see the mount beneath", &place)(io::Error::other("the old one is still there")))
}

/// Whether files in `dir` can share blocks.
pub(crate) fn shares_blocks(dir: &Path) -> bool {
    let scratch = tempfile::Builder::new().prefix("probe-").tempdir_in(dir);
    scratch.is_ok_and(|scratch| try_reflink(scratch.path()).is_ok())
}

/// A user namespace that maps `0..size` to `base..`, held by its descriptor alone.
fn namespace(base: u32, size: u32) -> Result<OwnedFd, FsError> {
    let failed = |source| io_error("make a user namespace with", Path::new("cat"))(source);
    let mut command = Command::new("cat");
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    // SAFETY: between fork and exec the child makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            if libc::unshare(libc::CLONE_NEWUSER) == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        });
    }
    // It waits for the end of its input, which is our dropping the pipe.
    let mut child = command.spawn().map_err(failed)?;
    let proc = std::path::PathBuf::from(format!("/proc/{}", child.id()));
    let map = format!("0 {base} {size}\n");
    let opened = fs::write(proc.join("uid_map"), &map)
        .and_then(|()| fs::write(proc.join("gid_map"), &map))
        .and_then(|()| File::open(proc.join("ns/user")));
    drop(child.stdin.take());
    let ended = child.wait();
    let opened = opened.map_err(failed)?;
    ended.map_err(failed)?;
    Ok(opened.into())
}

/// The first success, else the first failure: interfaces are tried newest first.
fn first<T, const N: usize>(results: [Result<T, FsError>; N]) -> Result<T, FsError> {
    let mut failure = None;
    for result in results {
        match result {
            Ok(value) => return Ok(value),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    Err(failure.unwrap_or_else(|| FsError::NoBackend(String::new())))
}

fn chain(error: &FsError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rustix::mount::{MountPropagationFlags, mount_change};

    use super::*;

    /// Attached layers would be seen by others; they are made in a namespace of their own.
    fn isolated(test: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            let test = || {
                // SAFETY: the call changes the mount namespace of this thread only.
                assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0);
                let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
                mount_change("/", private).unwrap();
                test();
            };
            scope.spawn(test).join().unwrap();
        });
    }

    #[test]
    fn every_interface_mounts_both_backends_and_leaves_nothing_attached() {
        isolated(|| {
            let dir = tempfile::tempdir().unwrap();
            let sample = Sample::write(dir.path()).unwrap();
            let namespace = namespace(100_000, 65_536).unwrap();
            for interface in LayerInterface::ALL {
                sample.try_erofs(dir.path(), interface, None).unwrap();
                sample.try_erofs(dir.path(), interface, Some(&namespace)).unwrap();
                try_linked(dir.path(), interface).unwrap();
            }
            let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
            assert!(!table.contains(dir.path().to_str().unwrap()), "{table}");
            assert_eq!(fs::read_dir(dir.path().join("mounts")).unwrap().count(), 0);
        });
    }

    #[test]
    fn what_works_here_is_reported_with_the_backend_that_follows() {
        isolated(|| {
            let dir = tempfile::tempdir().unwrap();
            let found = probe(dir.path()).unwrap();
            println!("{found:#?}");
            let erofs = found.file_backed_erofs.available && found.data_only_layers.available;
            assert_eq!(found.backend == Some(Backend::Erofs), erofs);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        });
    }
}
