//! A store with Volumes in it, and containers that have them mounted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use homeport_content::{Delta, Layered, SnapshotId, Stack, Tree};
use homeport_fs::{
    BackendChoice, IdMap, SnapshotFs, TakeKind, Taken, VolumeMount, VolumePlace, VolumeRequest,
};
use homeport_store::Store;

use crate::container::Container;
use crate::snapshots::user_namespace;

pub struct Place {
    pub store: Arc<Store>,
    pub fs: Arc<SnapshotFs>,
    pub map: Option<IdMap>,
    pub dir: tempfile::TempDir,
}

/// A Volume in a running container.
pub struct Running {
    pub volume: VolumeMount,
    pub container: Container,
    /// Where the container sees it first.
    pub at: String,
}

impl Place {
    pub fn new(choice: BackendChoice, mapped: bool) -> Place {
        Place::within(&std::env::temp_dir(), choice, mapped)
    }

    pub fn within(parent: &Path, choice: BackendChoice, mapped: bool) -> Place {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir_in(parent).unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let store = Arc::new(Store::open(&dir.path().join("store")).unwrap());
        let fs = SnapshotFs::open(Arc::clone(&store), &dir.path().join("fs"), choice).unwrap();
        Place { store, fs: Arc::new(fs), map: mapped.then(user_namespace), dir }
    }

    /// A version that is one tree of small and large files.
    pub fn version(&self, files: &[(&str, &str)]) -> Stack {
        Stack::of(self.tree(files))
    }

    pub fn tree(&self, files: &[(&str, &str)]) -> SnapshotId {
        let mut tree = Tree::default();
        for (path, text) in files {
            let leaf = homeport_content::Leaf {
                metadata: homeport_content::Metadata::with_mode(0o644),
                kind: homeport_content::LeafKind::File(self.store.file_content(text.as_bytes()).unwrap()),
            };
            tree.insert_leaf(path.as_bytes(), leaf).unwrap();
        }
        self.store.put_tree(&tree).unwrap()
    }

    pub fn staging(&self, key: &str) -> PathBuf {
        let staging = self.dir.path().join(format!("staging-{key}"));
        std::fs::create_dir_all(&staging).unwrap();
        staging
    }

    pub fn open(&self, key: &str, stack: &Stack, places: &[VolumePlace]) -> VolumeMount {
        self.try_open(key, stack, places, &[], 0).unwrap()
    }

    pub fn try_open(
        &self,
        key: &str,
        stack: &Stack,
        places: &[VolumePlace],
        early: &[&str],
        quota_bytes: u64,
    ) -> Result<VolumeMount, homeport_fs::VolumeError> {
        let early: Vec<String> = early.iter().map(|pattern| (*pattern).to_owned()).collect();
        self.fs.open_volume(VolumeRequest {
            key,
            stack,
            id_map: self.map.as_ref(),
            places,
            early_copies: &early,
            quota_bytes,
            staging: &self.staging(key),
        })
    }

    /// Opens a Volume and starts a container that sees it at one place.
    pub fn run(&self, key: &str, stack: &Stack) -> Running {
        let at = format!("/mnt/{key}");
        self.run_at(key, stack, &[place(&at, "", false)])
    }

    pub fn run_at(&self, key: &str, stack: &Stack, places: &[VolumePlace]) -> Running {
        let volume = self.open(key, stack, places);
        self.start(volume, places)
    }

    pub fn start(&self, volume: VolumeMount, places: &[VolumePlace]) -> Running {
        let binds = volume.binds();
        self.start_with(volume, &binds, places[0].path.to_str().unwrap())
    }

    pub fn start_with(&self, volume: VolumeMount, binds: &[(PathBuf, PathBuf, bool)], at: &str) -> Running {
        let root = self.dir.path().join(format!("root-{}", volume.key()));
        std::fs::create_dir_all(&root).unwrap();
        let container = Container::start(&root, binds, self.map.as_ref());
        Running { volume, container, at: at.to_owned() }
    }

    /// The layers of a version with a delta on top.
    pub fn with(&self, taken: &Taken) -> Stack {
        match taken.delta {
            Some(delta) => taken.seen.with(delta),
            None => taken.seen.clone(),
        }
    }

    pub fn layers(&self, stack: &Stack) -> Layered {
        self.store.layered(stack).unwrap()
    }

    /// All paths of a version.
    pub fn paths(&self, stack: &Stack) -> Vec<String> {
        let layers = self.layers(stack);
        layers.walk(b"").map(|(path, _)| String::from_utf8(path).unwrap()).collect()
    }

    /// The text of a file in a version.
    #[track_caller]
    pub fn text(&self, stack: &Stack, path: &str) -> String {
        let layers = self.layers(stack);
        let Some(homeport_content::Seen::Leaf { leaf, .. }) = layers.get(path.as_bytes()) else {
            panic!("no file `{path}`");
        };
        let homeport_content::LeafKind::File(content) = &leaf.kind else { panic!("`{path}` is no file") };
        String::from_utf8(self.store.read_content(content).unwrap()).unwrap()
    }

    pub fn delta(&self, taken: &Taken) -> Arc<Delta> {
        self.store.delta(&taken.delta.unwrap()).unwrap()
    }
}

impl Running {
    #[track_caller]
    pub fn take(&mut self, kind: TakeKind) -> Taken {
        let volume = &mut self.volume;
        self.container.inside(|inside| volume.take(Some(inside), kind)).unwrap()
    }

    pub fn show(&mut self, stack: &Stack) -> Result<(), homeport_fs::ShowError> {
        let volume = &mut self.volume;
        self.container.inside(|inside| volume.show(inside, stack, false))
    }

    /// Ends the container and takes what is left.
    #[track_caller]
    pub fn end(self) -> (VolumeMount, Taken) {
        let Running { mut volume, container, .. } = self;
        container.end();
        let taken = volume.take(None, TakeKind::Ended).unwrap();
        (volume, taken)
    }

    #[track_caller]
    pub fn read(&mut self, name: &str) -> String {
        let path = format!("{}/{name}", self.at);
        self.container.read(&path)
    }

    #[track_caller]
    pub fn write(&mut self, name: &str, text: &str) {
        let path = format!("{}/{name}", self.at);
        self.container.write(&path, text);
    }

    #[track_caller]
    pub fn list(&mut self) -> Vec<String> {
        let at = self.at.clone();
        self.container.list(&at)
    }

    /// Runs Python with `at` as the path of the Volume.
    #[track_caller]
    pub fn python(&mut self, code: &str) -> serde_json::Value {
        let at = self.at.clone();
        self.container.run(&format!("at = {at:?}"));
        self.container.run(code)
    }
}

pub fn place(path: &str, sub_path: &str, read_only: bool) -> VolumePlace {
    VolumePlace { path: path.into(), sub_path: sub_path.into(), read_only }
}

/// What each test asks of every way of mounting: both backends, without and with mapped ids.
pub fn everywhere(test: impl Fn(&Place) + Sync) {
    for choice in [BackendChoice::Erofs, BackendChoice::Linked] {
        for mapped in [false, true] {
            crate::snapshots::isolated(|| {
                println!("{choice:?}, ids mapped: {mapped}");
                test(&Place::new(choice, mapped));
            });
        }
    }
}
