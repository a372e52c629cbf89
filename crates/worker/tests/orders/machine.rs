//! A worker on a machine of its own: store, file system, runtime, all in one directory.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use homeport_content::{Entry, Leaf, LeafKind, Metadata, SnapshotId, Tree};
use homeport_fs::{BackendChoice, SnapshotFs};
use homeport_image::base::{BaseOptions, Bases};
use homeport_proto::worker::order::Order as OrderKind;
use homeport_proto::worker::run_step::Step;
use homeport_proto::worker::{Limits, RunCommand, RunStep, Signal, SignalTask, StartTask};
use homeport_runtime::{Runtime, RuntimeOptions};
use homeport_store::Store;
use homeport_worker::{HostEnvironment, Worker, WorkerOptions};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::control::{CREDENTIAL, Control, Link};

const BUSYBOX: &str = "/bin/busybox";
pub(crate) const LISTEN: &str = "127.0.0.1:10101";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Machines look at the descriptors of the whole process, so there is one at a time.
static ONE: Mutex<()> = Mutex::const_new(());

pub(crate) struct Machine {
    pub(crate) store: Arc<Store>,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) image: SnapshotId,
    pub(crate) control: Arc<Control>,
    options: WorkerOptions,
    bases: Arc<Bases>,
    shutdown: CancellationToken,
    worker: JoinHandle<()>,
    directory: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Machine {
    /// A worker that has attached.
    pub(crate) async fn start() -> (Self, Link) {
        assert!(rustix::process::geteuid().is_root(), "these tests make containers and need root");
        let alone = ONE.lock().await;
        let directory = tempfile::tempdir().unwrap();
        // Containers reach their roots in it with ids of their own.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o711)).unwrap();
        let place = directory.path();
        let store = Arc::new(Store::open(&place.join("store")).unwrap());
        let fs = SnapshotFs::open(Arc::clone(&store), &place.join("fs"), BackendChoice::Auto).unwrap();
        let name = format!("work-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let runtime = Arc::new(Runtime::open(RuntimeOptions::new(place.join("runtime"), name)).unwrap());
        runtime.recover().unwrap();
        let bases = Bases::new(Arc::clone(&store), BaseOptions::new(place.join("cache")));
        let image = store.put_tree(&busybox(&store)).unwrap();
        let control = Control::start().await;
        let address = format!("http://{}", control.address);
        let mut options = WorkerOptions::new("w-1", address, CREDENTIAL, place.join("worker"));
        let bundle = place.join("bundle.crt");
        fs::write(&bundle, "certificates").unwrap();
        options.host_environment = HostEnvironment::read([
            ("SSL_CERT_FILE".to_owned(), bundle.to_str().unwrap().to_owned()),
            ("PIP_INDEX_URL".to_owned(), "http://index.example/simple".to_owned()),
        ]);
        options.cdi_dirs = Vec::new();
        options.background_commits = Duration::from_millis(200);
        let bases = Arc::new(bases);
        let parts = (Arc::clone(&store), Arc::new(fs), Arc::clone(&runtime), Arc::clone(&bases));
        let worker = Worker::new(options.clone(), parts.0, parts.1, parts.2, parts.3).unwrap();
        let shutdown = CancellationToken::new();
        let worker = tokio::spawn(worker.run(shutdown.clone()));
        let link = control.attached().await;
        let machine = Self {
            store,
            runtime,
            image,
            control,
            options,
            bases,
            shutdown,
            worker,
            directory,
            _alone: alone,
        };
        (machine, link)
    }

    /// Ends the worker, with what control left unanswered, and starts another one over the same directories.
    pub(crate) async fn start_anew(&mut self, link: Link) -> Link {
        self.shutdown.cancel();
        link.until_closed().await;
        (&mut self.worker).await.unwrap();
        let place = self.directory.path();
        let fs = SnapshotFs::open(Arc::clone(&self.store), &place.join("fs"), BackendChoice::Auto).unwrap();
        let (store, runtime) = (Arc::clone(&self.store), Arc::clone(&self.runtime));
        let bases = Arc::clone(&self.bases);
        let worker = Worker::new(self.options.clone(), store, Arc::new(fs), runtime, bases).unwrap();
        self.shutdown = CancellationToken::new();
        self.worker = tokio::spawn(worker.run(self.shutdown.clone()));
        self.control.attached().await
    }

    /// Tells the worker to stop.
    pub(crate) fn begin_stop(&self) {
        self.shutdown.cancel();
    }

    /// Stops the worker; nothing of its orders may be left.
    pub(crate) async fn stop(mut self, link: Link) {
        self.shutdown.cancel();
        link.until_closed().await;
        (&mut self.worker).await.unwrap();
        self.assert_bare();
        let recovered = self.runtime.shutdown().unwrap();
        assert_eq!((recovered.containers, recovered.processes), (0, 0));
    }

    /// Nothing of any order is on the machine.
    pub(crate) fn assert_bare(&self) {
        let traces = self.traces();
        assert!(traces.is_empty(), "{traces:#?}");
    }

    /// What orders have made on the machine: mounts, directories, namespaces.
    pub(crate) fn traces(&self) -> Vec<String> {
        let place = self.directory.path();
        let worker = place.join("worker").to_string_lossy().into_owned();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut traces: Vec<String> = mounts
            .lines()
            .filter(|line| line.contains(&worker))
            .map(|line| format!("mount {line}"))
            .collect();
        for part in ["worker/sites", "worker/volumes", "fs/layers", "fs/volumes", "runtime/bundles"] {
            for entry in fs::read_dir(place.join(part)).into_iter().flatten() {
                traces.push(format!("directory {}", entry.unwrap().path().display()));
            }
        }
        traces.extend(held_namespaces());
        traces
    }

    /// A task that runs a shell script.
    pub(crate) fn task(&self, id: &str, script: &str) -> StartTask {
        StartTask {
            task_id: id.to_owned(),
            layers: vec![self.image.to_string()],
            argv: shell(script),
            listen: LISTEN.to_owned(),
            ..StartTask::default()
        }
    }

    /// A step that runs a shell script.
    pub(crate) fn command(&self, script: &str) -> RunCommand {
        RunCommand { layers: vec![self.image.to_string()], argv: shell(script), ..RunCommand::default() }
    }

    pub(crate) fn tree(&self, snapshot: &str) -> Arc<Tree> {
        self.store.tree(&snapshot.parse().unwrap()).unwrap()
    }

    /// Paths that a snapshot has and the image doesn't, with their contents.
    pub(crate) fn added(&self, snapshot: &str) -> HashMap<String, String> {
        let (image, result) = (self.store.tree(&self.image).unwrap(), self.tree(snapshot));
        result
            .walk()
            .filter(|(path, _)| image.get(path).is_none())
            .map(|(path, _)| (String::from_utf8(path.clone()).unwrap(), self.read(&result, &path)))
            .collect()
    }

    pub(crate) fn read(&self, tree: &Tree, path: &[u8]) -> String {
        match tree.get(path) {
            Some(homeport_content::EntryRef::Leaf(_, Leaf { kind: LeafKind::File(content), .. })) => {
                String::from_utf8(self.store.read_content(content).unwrap()).unwrap()
            }
            _ => String::new(),
        }
    }
}

impl Drop for Machine {
    /// After a failed test the worker still takes down what it made, and so does the runtime.
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        self.shutdown.cancel();
        let deadline = Instant::now() + Duration::from_secs(40);
        while !self.worker.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        if let Err(error) = self.runtime.shutdown() {
            eprintln!("left on the machine: {error}");
        }
    }
}

/// Network namespaces that this process holds open, beside its own.
fn held_namespaces() -> Vec<String> {
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter(|target| target.to_string_lossy().starts_with("net:[") && *target != own)
        .map(|target| format!("namespace {}", target.display()))
        .collect()
}

fn shell(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}

pub(crate) fn signal(id: &str, signal: Signal) -> OrderKind {
    OrderKind::SignalTask(SignalTask { task_id: id.to_owned(), signal: signal.into() })
}

pub(crate) fn step(id: &str, step: Step) -> OrderKind {
    OrderKind::RunStep(RunStep { step_id: id.to_owned(), step: Some(step) })
}

pub(crate) fn memory(bytes: u64) -> Limits {
    Limits { memory_bytes: bytes, ..Limits::default() }
}

fn busybox(store: &Store) -> Tree {
    assert!(Path::new(BUSYBOX).exists(), "{BUSYBOX} is missing: install the package busybox-static");
    let mut tree = Tree::new(Metadata::with_mode(0o755));
    for (path, mode) in [("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777)] {
        tree.root.entries.insert(
            path.as_bytes().into(),
            Entry::Directory(Box::new(homeport_content::Directory::new(Metadata::with_mode(mode)))),
        );
    }
    let mut put = |path: &str, mode, kind| {
        tree.insert_leaf(path.as_bytes(), Leaf { metadata: Metadata::with_mode(mode), kind }).unwrap();
    };
    let program = store.file_content(fs::File::open(BUSYBOX).unwrap()).unwrap();
    put("bin/busybox", 0o755, LeafKind::File(program));
    let applets = Command::new(BUSYBOX).arg("--list").output().unwrap().stdout;
    for applet in String::from_utf8(applets).unwrap().lines().filter(|applet| *applet != "busybox") {
        put(&format!("bin/{applet}"), 0o777, LeafKind::Symlink(b"busybox".as_slice().into()));
    }
    let passwd = "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/tmp:/bin/sh\n";
    put("etc/passwd", 0o644, LeafKind::File(store.file_content(passwd.as_bytes()).unwrap()));
    put(
        "etc/group",
        0o644,
        LeafKind::File(store.file_content("root:x:0:\napp:x:1000:\n".as_bytes()).unwrap()),
    );
    tree
}
