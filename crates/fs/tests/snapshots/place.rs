//! Where a test runs: a mount namespace, a directory, a store and a [`SnapshotFs`].

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use homeport_content::{FileContent, Leaf, LeafKind, Metadata, SnapshotId, Tree};
use homeport_fs::{BackendChoice, CommitRequest, IdMap, Mount, MountRequest, SnapshotFs, WritableLayer};
use homeport_store::Store;
use rustix::mount::{MountPropagationFlags, mount_change};

pub const HOST_BASE: u32 = 100_000;

/// Runs a test in a thread with a mount namespace of its own.
pub fn isolated(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: the thread shares no memory-unsafe state through its namespaces.
            let result = unsafe { libc::unshare(libc::CLONE_NEWNS) };
            assert_eq!(result, 0, "unshare: {}", io::Error::last_os_error());
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

pub struct Place {
    pub dir: tempfile::TempDir,
    pub store: Arc<Store>,
    pub fs: SnapshotFs,
    pub map: Option<IdMap>,
    mounts: AtomicU32,
}

impl Place {
    pub fn new(choice: BackendChoice, mapped: bool) -> Place {
        Place::within(&std::env::temp_dir(), choice, mapped)
    }

    /// In memory where that can be, because syncs cost nothing there. EROFS images cannot be
    /// mounted from files in memory.
    pub fn quick(choice: BackendChoice, mapped: bool) -> Place {
        match choice {
            BackendChoice::Linked => Place::within(Path::new("/dev/shm"), choice, mapped),
            _ => Place::new(choice, mapped),
        }
    }

    fn within(parent: &Path, choice: BackendChoice, mapped: bool) -> Place {
        let dir = tempfile::tempdir_in(parent).unwrap();
        // A mapped root must get through to what is mounted here.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let store = Arc::new(Store::open(&dir.path().join("store")).unwrap());
        let fs = SnapshotFs::open(Arc::clone(&store), &dir.path().join("fs"), choice).unwrap();
        Place { store, fs, map: mapped.then(user_namespace), mounts: AtomicU32::new(0), dir }
    }

    pub fn target(&self) -> PathBuf {
        let number = self.mounts.fetch_add(1, Ordering::Relaxed);
        let target = self.dir.path().join(format!("mount-{number}"));
        fs::create_dir(&target).unwrap();
        target
    }

    /// Mounts for writing, with the map.
    pub fn writable(&self, lowers: &[SnapshotId]) -> (WritableLayer, Mount) {
        let layer = self.fs.new_layer("test").unwrap();
        let mount = self.again(lowers, &layer);
        (layer, mount)
    }

    pub fn again(&self, lowers: &[SnapshotId], layer: &WritableLayer) -> Mount {
        let request =
            MountRequest { lowers, layer: Some(layer), target: &self.target(), id_map: self.map.as_ref() };
        self.fs.mount(request).unwrap()
    }

    /// Mounts for reading, without the map.
    pub fn readable(&self, lowers: &[SnapshotId]) -> Mount {
        let request = MountRequest { lowers, layer: None, target: &self.target(), id_map: None };
        self.fs.mount(request).unwrap()
    }

    pub fn commit(
        &self,
        layer: &WritableLayer,
        lowers: &[SnapshotId],
        exclude: &[&str],
    ) -> Result<SnapshotId, homeport_fs::FsError> {
        self.fs.commit(CommitRequest { layer, lowers, exclude, id_map: self.map.as_ref() })
    }

    /// Changes a snapshot through a mount and commits that.
    pub fn changed(&self, lowers: &[SnapshotId], change: impl FnOnce(&Path)) -> SnapshotId {
        let (layer, mount) = self.writable(lowers);
        acting_as_container_root(self.map.is_some(), || change(mount.target()));
        mount.unmount().unwrap();
        self.commit(&layer, lowers, &[]).unwrap()
    }

    pub fn put(&self, tree: &Tree) -> SnapshotId {
        self.store.put_tree(tree).unwrap()
    }

    /// A file's content, in the store where it is large.
    pub fn content(&self, bytes: &[u8]) -> FileContent {
        self.store.file_content(bytes).unwrap()
    }

    pub fn file(&self, mode: u32, bytes: &[u8]) -> Leaf {
        Leaf { metadata: Metadata::with_mode(mode), kind: LeafKind::File(self.content(bytes)) }
    }
}

/// Both backends, without and with mapped ids.
pub fn everywhere(test: impl Fn(&Place) + Sync) {
    for choice in [BackendChoice::Erofs, BackendChoice::Linked] {
        for mapped in [false, true] {
            isolated(|| {
                println!("{choice:?}, ids mapped: {mapped}");
                test(&Place::new(choice, mapped));
            });
        }
    }
}

/// Runs with the file system ids of a container's root, and all rights over files.
pub fn acting_as_container_root<T>(mapped: bool, act: impl FnOnce() -> T) -> T {
    if !mapped {
        return act();
    }
    const NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
    let ids = |id: u32| {
        // SAFETY: these calls change ids of this thread only, and touch no memory.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_SECUREBITS, NO_SETUID_FIXUP, 0, 0, 0), 0);
            libc::syscall(libc::SYS_setfsgid, id);
            libc::syscall(libc::SYS_setfsuid, id);
        }
    };
    ids(HOST_BASE);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
    ids(0);
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A user namespace held by its descriptor alone.
pub fn user_namespace() -> IdMap {
    let mut command = Command::new("cat");
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    // SAFETY: the child makes one system call between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::unshare(libc::CLONE_NEWUSER) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    let mut child = command.spawn().unwrap();
    let proc = PathBuf::from(format!("/proc/{}", child.id()));
    let size = 65_536;
    for map in ["uid_map", "gid_map"] {
        fs::write(proc.join(map), format!("0 {HOST_BASE} {size}\n")).unwrap();
    }
    let userns = File::open(proc.join("ns/user")).unwrap().into();
    drop(child.stdin.take());
    child.wait().unwrap();
    IdMap { userns, host_base: HOST_BASE, size }
}
