//! Scans of real overlays: what they say must be what the mount shows. Needs root.

#[path = "../../../tests/snapshots/observe.rs"]
#[allow(dead_code)]
mod observe;

mod cases;
mod random;
mod reflink;

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use homeport_content::{Delta, FileContent, Layered, Leaf, LeafKind, Metadata, Stack, Timestamp, Tree};
use homeport_store::Store;
use rustix::mount::{MountPropagationFlags, mount_change};

use super::{Contents, Index, Known, Manner, ScanRequest, scan};
use crate::kernel::{self, LayerMount};
use crate::overlay::{Lasting, Writable};
use crate::{BackendChoice, FsError, IdMap, Lower, SnapshotFs};
use observe::{assert_same, observe};

const HOST_BASE: u32 = 100_000;

/// Runs a test in a thread with a mount namespace of its own.
fn isolated(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: the thread shares no memory-unsafe state through its namespaces.
            let result = unsafe { libc::unshare(libc::CLONE_NEWNS) };
            assert_eq!(result, 0, "unshare: {}", std::io::Error::last_os_error());
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A user namespace that nobody is in.
fn user_namespace() -> IdMap {
    use std::os::unix::process::CommandExt;
    let mut command = std::process::Command::new("cat");
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    // SAFETY: the child makes one system call between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::unshare(libc::CLONE_NEWUSER) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let mut child = command.spawn().unwrap();
    let proc = PathBuf::from(format!("/proc/{}", child.id()));
    for map in ["uid_map", "gid_map"] {
        fs::write(proc.join(map), format!("0 {HOST_BASE} 65536\n")).unwrap();
    }
    let userns = File::open(proc.join("ns/user")).unwrap().into();
    drop(child.stdin.take());
    child.wait().unwrap();
    IdMap { userns, host_base: HOST_BASE, size: 65_536 }
}

struct Place {
    dir: tempfile::TempDir,
    store: Arc<Store>,
    fs: SnapshotFs,
    map: Option<IdMap>,
    number: std::cell::Cell<u32>,
}

/// A writable mount over a stack.
struct Mounted<'a> {
    place: &'a Place,
    stack: Stack,
    seen: Layered,
    dir: PathBuf,
    known: Known,
    layers: Vec<Arc<LayerMount>>,
}

impl Place {
    fn new(mapped: bool) -> Place {
        Place::within(tempfile::tempdir().unwrap(), mapped)
    }

    fn within(dir: tempfile::TempDir, mapped: bool) -> Place {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let store = Arc::new(Store::open(&dir.path().join("store")).unwrap());
        let fs = SnapshotFs::open(Arc::clone(&store), &dir.path().join("fs"), BackendChoice::Erofs).unwrap();
        Place { store, fs, map: mapped.then(user_namespace), number: 0.into(), dir }
    }

    fn file(&self, mode: u32, bytes: &[u8]) -> Leaf {
        let content = self.store.file_content(bytes).unwrap();
        Leaf { metadata: Metadata::with_mode(mode), kind: LeafKind::File(content) }
    }

    fn base(&self, tree: &Tree) -> Stack {
        Stack::of(self.store.put_tree(tree).unwrap())
    }

    /// Mounts with a fresh upper directory.
    fn mount(&self, stack: &Stack) -> Mounted<'_> {
        let number = self.number.replace(self.number.get() + 1);
        let dir = self.dir.path().join(format!("mounted-{number}"));
        for part in ["upper", "work", "target"] {
            fs::create_dir_all(dir.join(part)).unwrap();
        }
        let seen = self.store.layered(stack).unwrap();
        let root = seen.get(b"").unwrap().metadata();
        let host = |id| self.map.as_ref().map_or(id, |map| map.to_host(id).unwrap());
        let upper = dir.join("upper");
        chown(&upper, Some(host(root.uid)), Some(host(root.gid))).unwrap();
        chown(dir.join("work"), Some(host(0)), Some(host(0))).unwrap();
        fs::set_permissions(&upper, fs::Permissions::from_mode(root.mode)).unwrap();
        for (name, value) in &root.xattrs {
            let name = crate::commit::upper::escaped(name);
            rustix::fs::lsetxattr(&upper, &*name, value, rustix::fs::XattrFlags::empty()).unwrap();
        }
        set_time(&upper, root.mtime);
        // As in the stack, the base first.
        let layers: Vec<_> = std::iter::once(Lower::Snapshot(stack.base))
            .chain(stack.deltas.iter().map(|delta| Lower::Delta(*delta)))
            .map(|lower| self.fs.layer_mount(lower).unwrap())
            .collect();
        let mounted =
            Mounted { place: self, stack: stack.clone(), seen, dir, known: Known::default(), layers };
        mounted.attach();
        mounted
    }

    /// The tree that a stack is.
    fn tree(&self, stack: &Stack) -> Tree {
        self.store.layered(stack).unwrap().flatten()
    }
}

impl Mounted<'_> {
    fn root(&self) -> PathBuf {
        self.dir.join("target")
    }

    fn upper(&self) -> PathBuf {
        self.dir.join("upper")
    }

    fn attach(&self) {
        let uppermost: Vec<_> = {
            let mut known = std::collections::HashSet::new();
            let lowers = self.layers.iter().rev();
            lowers.filter(|layer| known.insert(Arc::as_ptr(layer))).cloned().collect()
        };
        let mapped = self.place.fs.id_mapped(&uppermost, self.place.map.as_ref(), "test").unwrap();
        let used: Vec<&LayerMount> = match mapped.is_empty() {
            true => uppermost.iter().map(Arc::as_ref).collect(),
            false => mapped.iter().collect(),
        };
        let (upper, work) = (self.upper(), self.dir.join("work"));
        let writable = Writable { upper: &upper, work: &work, lasting: Some(Lasting::Indexed) };
        let mount = self.place.fs.overlay(&used, None, Some(writable), "test").unwrap();
        kernel::attach(mount.as_fd(), &self.root()).unwrap();
    }

    fn detach(&self) {
        // A process that another thread starts holds it until it has executed its program.
        for pause in 0..10 {
            match kernel::detach(&self.root()) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    std::thread::sleep(std::time::Duration::from_millis(1 << pause));
                }
                result => return result.unwrap(),
            }
        }
        panic!("it stays in use");
    }

    fn scan(&self, manner: Manner) -> Result<Delta, FsError> {
        self.scan_with(manner, |contents| contents)
    }

    /// Scans, publishes, and gives the delta.
    fn scan_with(
        &self,
        manner: Manner,
        prepare: impl for<'c> FnOnce(Contents<'c>) -> Contents<'c>,
    ) -> Result<Delta, FsError> {
        let store = &*self.place.store;
        let batch = store.batch().unwrap();
        let contents = prepare(Contents::new(store, &batch, manner, &self.known));
        let index = self.dir.join("work/index");
        let layers: Vec<_> = self.layers.iter().map(|layer| layer.fd()).collect();
        let request = ScanRequest {
            upper: &self.upper(),
            index: Some(Index { dir: &index, stack: &self.stack, layers: &layers }),
            seen: &self.seen,
            id_map: self.place.map.as_ref(),
            exclude: &[],
        };
        let delta = scan(request, &contents)?;
        drop(contents);
        batch.publish_with_delta(&delta).unwrap();
        self.known.confirm();
        Ok(delta)
    }

    /// Number of files that the next scan will not read.
    fn known_leaves(&self) -> usize {
        fn count(directory: &Path, known: &Known) -> usize {
            let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
            entries
                .map(|path| {
                    let stat = rustix::fs::lstat(&path).unwrap();
                    let (inode, stamp) = super::known::Stamp::of(&stat);
                    match path.is_dir() && !path.is_symlink() {
                        true => count(&path, known),
                        false => usize::from(known.leaf(inode, stamp).is_some()),
                    }
                })
                .sum()
        }
        count(&self.upper(), &self.known)
    }

    /// Scans the mounted overlay and fails unless the delta gives what is shown.
    #[track_caller]
    fn check(&self, what: &str) -> Delta {
        rustix::fs::sync();
        let shown = shifted(observe(&self.root()), self.place.map.as_ref());
        let delta = self.scan(Manner::Copy).unwrap();
        let found = self.seen.with(Arc::new(delta.clone())).flatten();
        assert_same(&found, &shown, what);
        delta
    }

    /// Unmounts, takes all for good, and gives the stack of that.
    fn finish(self) -> Stack {
        let shown = shifted(observe(&self.root()), self.place.map.as_ref());
        self.detach();
        let delta = self.scan(Manner::Adopt).unwrap();
        let stack = self.stack.with(self.place.store.put_delta(&delta).unwrap());
        assert_same(&self.place.tree(&stack), &shown, "what was taken at the end");
        fs::remove_dir_all(&self.dir).unwrap();
        stack
    }
}

/// Ids as the container sees them.
fn shifted(mut tree: Tree, map: Option<&IdMap>) -> Tree {
    fn shift(metadata: &mut Metadata, map: &IdMap) {
        metadata.uid = map.to_container(metadata.uid);
        metadata.gid = map.to_container(metadata.gid);
    }
    fn directories(directory: &mut homeport_content::Directory, map: &IdMap) {
        shift(&mut directory.metadata, map);
        for entry in directory.entries.values_mut() {
            if let homeport_content::Entry::Directory(below) = entry {
                directories(below, map);
            }
        }
    }
    if let Some(map) = map {
        tree.leaves.iter_mut().for_each(|leaf| shift(&mut leaf.metadata, map));
        directories(&mut tree.root, map);
    }
    tree
}

fn set_time(path: &Path, time: Timestamp) {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// The leaf at a path of a delta.
fn leaf<'a>(delta: &'a Delta, path: &str) -> &'a Leaf {
    match delta.get(path.as_bytes()) {
        Some(homeport_content::Change::Leaf(id)) => delta.leaf(*id).unwrap(),
        other => panic!("`{path}` is {other:?}"),
    }
}

fn content<'a>(delta: &'a Delta, path: &str) -> &'a FileContent {
    match &leaf(delta, path).kind {
        LeafKind::File(content) => content,
        other => panic!("`{path}` is {other:?}"),
    }
}

/// All paths of a delta, with what became of them.
fn paths(delta: &Delta) -> Vec<String> {
    let shown = |change: &homeport_content::Change| match change {
        homeport_content::Change::Directory(_) => "/",
        homeport_content::Change::Leaf(_) => "",
        homeport_content::Change::Removed => " removed",
    };
    delta.walk().map(|(path, change)| String::from_utf8(path).unwrap() + shown(change)).collect()
}
