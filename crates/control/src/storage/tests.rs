//! What a server removes of its store, and what it says of it.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use homeport_content::{
    Digest, Edit, FileContent, Layered, Leaf, LeafKind, Metadata, SnapshotId, Timestamp, Tree,
};
use homeport_gateway::{BlobOptions, BlobStore};
use homeport_hub::{DirectoryCatalog, ImportRequest, import_model};
use homeport_meta::{Meta, files, steps};
use homeport_proto::client as pb;
use homeport_proto::record as rec;
use homeport_store::{Root, Store};

use super::*;
use crate::clock::{Clock, Seconds};
use crate::control::ControlOptions;
use crate::registry::Registry;
use crate::scheduler::Policy;
use crate::volumes::{NewVolume, Retention, Volumes};

const DAY: Seconds = 24.0 * 3600.0;

struct Hand(Mutex<Seconds>);

impl Clock for Hand {
    fn now(&self) -> Seconds {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Place {
    dir: tempfile::TempDir,
    store: Arc<Store>,
    clock: Arc<Hand>,
    models: Arc<DirectoryCatalog>,
    control: Control,
}

fn bytes(name: &str) -> Vec<u8> {
    name.as_bytes().repeat(5_000 / name.len() + 1)
}

fn leaf(name: &str) -> Leaf {
    let bytes = bytes(name);
    let content = FileContent::Object { digest: Digest::of(&bytes), size: bytes.len() as u64 };
    Leaf { metadata: Metadata::with_mode(0o644), kind: LeafKind::File(content) }
}

impl Place {
    async fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&dir.path().join("store")).unwrap());
        let clock = Arc::new(Hand(Mutex::new(1_000.0 * DAY)));
        let models = Arc::new(DirectoryCatalog::open(&dir.path().join("models")).unwrap());
        let blobs = BlobOptions::new(dir.path().join("blobs"));
        let blobs = Arc::new(BlobStore::open(blobs, Arc::new(SystemTime::now)).unwrap());
        let options = ControlOptions {
            policy: Policy::default(),
            heartbeat_timeout: 60.0,
            worker_credential: String::new(),
            base_url: String::new(),
            retention: Retention::default(),
            gc_grace: Duration::from_secs(3600),
            models: Arc::<DirectoryCatalog>::clone(&models),
            network_files_dir: dir.path().join("network"),
            secrets_key: dir.path().join("secrets.key"),
        };
        let meta = Meta::open(dir.path()).await.unwrap();
        let control = Control::open_at(options, meta, Arc::clone(&store), blobs, Arc::<Hand>::clone(&clock))
            .await
            .unwrap();
        Place { dir, store, clock, models, control }
    }

    /// A tree with one file, which is named as its content is.
    fn tree(&self, name: &str) -> SnapshotId {
        self.store.put_bytes(&bytes(name)).unwrap();
        let mut tree = Tree::default();
        tree.insert_leaf(name.as_bytes(), leaf(name)).unwrap();
        self.store.put_tree(&tree).unwrap()
    }

    async fn image(&self, name: &str) {
        let image = rec::Image {
            id: format!("im-{name}"),
            cache_key: name.to_owned(),
            snapshot: self.tree(name).to_string(),
            config_json: "{}".to_owned(),
            ..Default::default()
        };
        self.control.registry.put_image(image).await.unwrap();
    }

    async fn mount(&self, name: &str) {
        let snapshot = self.tree(name).to_string();
        let mount = rec::Mount { id: format!("mo-{name}"), snapshot, ..Default::default() };
        self.control.registry.put_mount(mount).await.unwrap();
    }

    async fn step(&self, key: &str, name: &str) {
        let step =
            steps::Step { cache_key: key.into(), snapshot: self.tree(name).to_string(), config: vec![] };
        steps::put(self.control.registry.meta(), &step).await.unwrap();
        self.control.find_step(key).await.unwrap().unwrap();
    }

    /// A deployed app with a function of this image.
    async fn deploy(&self, image: &str, mount: &str) {
        let mut app = rec::App { id: "ap-1".into(), name: "app".into(), ..Default::default() };
        app.set_state(pb::AppState::Deployed);
        self.control.registry.put_app(app).await.unwrap();
        let definition = pb::Function {
            image_id: format!("im-{image}"),
            mount_ids: vec![format!("mo-{mount}")],
            ..Default::default()
        };
        let function = rec::Function {
            id: "fu-1".into(),
            app_id: "ap-1".into(),
            definition: Some(definition),
            ..Default::default()
        };
        self.control.registry.put_function(function).await.unwrap();
    }

    async fn volume(&self, name: &str, contents: &'static [&'static str]) {
        let new = NewVolume { name: name.to_owned(), environment: "main".to_owned(), ..Default::default() };
        let id = format!("vo-{name}");
        self.control.volumes.create(&id, new).await.unwrap();
        let _hold = self.store.hold();
        for content in contents {
            self.store.put_bytes(&bytes(content)).unwrap();
        }
        let edit = move |head: &Layered| {
            let mut edit = Edit::new(head, Timestamp { seconds: 1, nanos: 0 });
            for content in contents {
                edit.put_leaf(content.as_bytes(), leaf(content)).unwrap();
            }
            Ok::<_, tonic::Status>(edit.finish())
        };
        self.control.volumes.publish_edit(&id, "upload", edit).await.unwrap();
    }

    async fn import(&self, name: &str, contents: &[&str]) {
        let directory = self.dir.path().join(format!("of-{name}"));
        std::fs::create_dir(&directory).unwrap();
        for content in contents {
            std::fs::write(directory.join(content), bytes(content)).unwrap();
        }
        let request = ImportRequest {
            directory,
            repo: format!("org/{name}").parse().unwrap(),
            branch: "main".parse().unwrap(),
            now: 1,
        };
        import_model(Arc::clone(&self.store), &*self.models, request, |_| ()).await.unwrap();
    }

    fn pass(&self, days: f64) {
        *self.clock.0.lock().unwrap() += days * DAY;
    }

    async fn collect(&self, dry_run: bool) -> Collected {
        let options = CollectOptions { dry_run, older_than: Some(Duration::ZERO) };
        self.control.collect_garbage(options, |_| ()).await.unwrap()
    }

    /// Which of the contents are in the store.
    fn here<'a>(&self, names: &[&'a str]) -> BTreeSet<&'a str> {
        names.iter().copied().filter(|name| self.store.contains(&Digest::of(&bytes(name)))).collect()
    }

    fn damage(&self, name: &str) {
        let path = self.store.object_path(&Digest::of(&bytes(name)));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::write(&path, b"something else").unwrap();
    }

    async fn check(&self, repair: bool) -> (Checked, Vec<String>) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&told);
        let options = CheckOptions { repair, repair_from: None };
        let on_event = move |event: CheckEvent| all.lock().unwrap().extend(event.fault);
        let checked = self.control.check_store(options, on_event).await.unwrap();
        (checked, Arc::try_unwrap(told).unwrap().into_inner().unwrap())
    }
}

#[tokio::test]
async fn what_is_used_stays_and_what_nobody_used_for_long_goes() {
    let place = Place::new().await;
    let all = [
        "needed",
        "mounted",
        "recent",
        "old",
        "old-mount",
        "old-step",
        "used-step",
        "layer",
        "model",
        "file",
        "pinned",
        "garbage",
    ];
    for name in ["needed", "recent", "old"] {
        place.image(name).await;
    }
    place.mount("mounted").await;
    place.mount("old-mount").await;
    place.deploy("needed", "mounted").await;
    place.step("abc", "old-step").await;
    place.step("def", "used-step").await;
    place.step("client layer 1", "layer").await;
    place.import("one", &["model"]).await;
    place.volume("weights", &["file"]).await;
    let pin = place.store.pin([Root::Tree(place.tree("pinned"))]);
    place.tree("garbage");
    let meta = place.control.registry.meta();
    for name in ["file", "garbage"] {
        let digest = Digest::of(&bytes(name)).to_string();
        files::put(meta, &files::File { sha256: name.into(), digest, size: 1 }).await.unwrap();
    }
    assert_eq!(place.here(&all).len(), all.len());

    // All is young enough by use, but what nothing refers to.
    assert_eq!(place.collect(false).await.removed_objects, 1);
    assert_eq!(place.here(&all), all[..all.len() - 1].iter().copied().collect());
    assert!(files::get(meta, "file").await.unwrap().is_some());
    assert_eq!(files::get(meta, "garbage").await.unwrap(), None);

    place.pass(31.0);
    place.control.registry.image("im-recent").unwrap();
    place.control.find_step("def").await.unwrap().unwrap();
    let foreseen = place.collect(true).await;
    assert_eq!(place.here(&all).len(), all.len() - 1);
    let done = place.collect(false).await;
    assert_eq!(done, foreseen);
    assert_eq!((done.removed_objects, done.removed_trees), (3, 3));
    let stays = ["needed", "mounted", "recent", "used-step", "layer", "model", "file", "pinned"];
    assert_eq!(place.here(&all), stays.into());
    let registry = &place.control.registry;
    assert!(registry.image("im-old").is_none() && registry.mount("mo-old-mount").is_none());
    assert!(registry.image("im-needed").is_some() && registry.mount("mo-mounted").is_some());

    // What loses its owner goes next time.
    drop(pin);
    registry.clear_app("ap-1").await.unwrap();
    place.control.volumes.delete("vo-weights").await.unwrap();
    place.pass(31.0);
    place.collect(false).await;
    assert_eq!(place.here(&all), ["layer", "model"].into());
    // And comes again.
    place.image("old").await;
    assert!(place.control.registry.image("im-old").is_some());
}

#[tokio::test]
async fn a_use_is_known_after_a_restart() {
    let place = Place::new().await;
    place.image("used").await;
    place.image("unused").await;
    place.pass(20.0);
    place.control.registry.image("im-used").unwrap();
    place.collect(false).await;
    place.pass(11.0);
    let registry = Registry::load(place.control.registry.meta().clone(), Arc::<Hand>::clone(&place.clock))
        .await
        .unwrap();
    let before = crate::registry::millis(place.clock.now() - 30.0 * DAY);
    assert_eq!(registry.unused(before).images, ["im-unused".to_owned()].into());
}

#[tokio::test]
async fn nothing_goes_while_the_content_of_somebody_cannot_be_read() {
    let place = Place::new().await;
    place.image("broken").await;
    place.tree("garbage");
    let hex = place.tree("broken").to_string();
    std::fs::remove_file(place.store.dir().join("trees").join(&hex[..2]).join(&hex[2..])).unwrap();
    let options = CollectOptions { dry_run: false, older_than: Some(Duration::ZERO) };
    let refused = place.control.collect_garbage(options, |_| ()).await.unwrap_err().to_string();
    assert!(refused.contains(&hex) && refused.contains("image im-broken"), "{refused}");
    assert!(refused.contains("homeport fsck --repair"), "{refused}");
    assert_eq!(place.here(&["garbage"]).len(), 1);
    // A check lets the image go, because it can be made again.
    let (checked, faults) = place.check(true).await;
    assert_eq!(checked.faults, 1, "{faults:?}");
    place.collect(false).await;
    assert_eq!(place.here(&["garbage", "broken"]).len(), 0);
}

#[tokio::test]
async fn a_check_names_whose_content_is_damaged_and_lets_go_of_what_can_be_made_again() {
    let place = Place::new().await;
    place.image("needed").await;
    place.mount("mounted").await;
    place.deploy("needed", "mounted").await;
    place.image("other").await;
    place.step("key", "cached").await;
    place.volume("weights", &["file"]).await;
    let (checked, faults) = place.check(false).await;
    assert_eq!((checked.faults, faults.len()), (0, 0));
    assert!(checked.objects >= 9 && checked.bytes > 20_000, "{checked:?}");
    for name in ["needed", "other", "cached", "file"] {
        place.damage(name);
    }
    assert_eq!(place.check(false).await.0.faults, 4);
    let (checked, faults) = place.check(true).await;
    // Each is said to be damaged, and who misses it.
    assert_eq!((checked.faults, checked.mended), (8, 0), "{faults:#?}");
    for owner in ["image im-needed", "image im-other", "build cache key", "volume weights"] {
        assert!(faults.iter().any(|fault| fault.contains(owner)), "{owner}: {faults:#?}");
    }
    let registry = &place.control.registry;
    assert!(registry.image("im-needed").is_some() && registry.image("im-other").is_none());
    assert!(place.control.find_step("key").await.unwrap().is_none());
    // Whoever brings the bytes again mends it.
    place.tree("needed");
    place.tree("file");
    assert_eq!(place.check(false).await.0.faults, 0);
}

#[tokio::test]
async fn wrong_sums_of_a_volume_are_found_and_put_right() {
    let place = Place::new().await;
    place.volume("weights", &["one", "two"]).await;
    let head = place.control.volumes.head("vo-weights").unwrap();
    let mut record = head.record.clone();
    record.files = 7;
    let row = homeport_meta::volume_versions::Version {
        volume_id: "vo-weights".into(),
        number: 1,
        created_at: 0,
        record: prost::Message::encode_to_vec(&record),
    };
    homeport_meta::volume_versions::replace(place.control.registry.meta(), &[row]).await.unwrap();
    let volumes = Volumes::load(
        place.control.registry.meta().clone(),
        Arc::clone(&place.store),
        Arc::<Hand>::clone(&place.clock),
        |_| true,
    );
    let volumes = Arc::new(volumes.await.unwrap());
    let wrong = volumes.recount(true).await.unwrap();
    let [recount] = &wrong[..] else { panic!("{wrong:?}") };
    assert_eq!((recount.said.0, recount.found.0, recount.corrected), (7, 2, true));
    assert_eq!(volumes.recount(false).await.unwrap(), []);
    assert_eq!(volumes.head("vo-weights").unwrap().record.files, 2);
}

#[tokio::test]
async fn a_model_of_what_is_here_costs_no_space_and_usage_says_so() {
    let place = Place::new().await;
    place.volume("weights", &["tokenizer", "weights"]).await;
    place.image("image").await;
    let before = place.control.disk_usage().await.unwrap();
    place.import("model", &["tokenizer", "weights", "image"]).await;
    let after = place.control.disk_usage().await.unwrap();
    let grown = after.total_bytes - before.total_bytes;
    // The tree with their names.
    assert!(grown <= 8192, "{grown}");
    let row = |kind: &str, name: &str| {
        after
            .rows
            .iter()
            .find(|row| row.kind == kind && row.name == name)
            .unwrap_or_else(|| panic!("{after:#?}"))
    };
    let model = row("model", "org/model");
    assert!(model.bytes > 3 * 5_000 && model.unique_bytes <= 8192, "{model:?}");
    let volume = row("volume", "weights");
    assert!(volume.bytes > 2 * 5_000 && volume.unique_bytes < volume.bytes - 2 * 5_000, "{volume:?}");
    assert!(after.garbage_bytes == 0 && after.free_bytes > 0, "{after:#?}");
    place.tree("garbage");
    assert!(place.control.disk_usage().await.unwrap().garbage_bytes >= 8192);
}
