//! Commits and reloads of containers, with a worker that does what the test says.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use homeport_gateway::{BlobOptions, BlobStore};
use homeport_hub::{CatalogError, ModelCatalog, ModelRecord, RepoId};
use homeport_proto::client as pb;
use homeport_proto::worker as wp;
use tokio::sync::mpsc;
use wp::order::Order;
use wp::volume_shown::Outcome as Shown;

use super::super::commits::CommitError;
use super::super::version::{stack_of, to_worker};
use super::{Container, Place, of};
use crate::control::{Control, ControlOptions};
use crate::scheduler::{Launch, Policy};

#[derive(Debug)]
struct NoModels;

#[async_trait::async_trait]
impl ModelCatalog for NoModels {
    async fn get(&self, _: &RepoId) -> Result<Option<Arc<ModelRecord>>, CatalogError> {
        Ok(None)
    }

    async fn list(&self) -> Result<Vec<Arc<ModelRecord>>, CatalogError> {
        Ok(Vec::new())
    }

    async fn put(&self, _: &ModelRecord) -> Result<(), CatalogError> {
        Ok(())
    }

    async fn remove(&self, _: &RepoId) -> Result<bool, CatalogError> {
        Ok(false)
    }
}

/// A server with one worker, whose orders the test reads.
pub(super) struct Server {
    pub(super) control: Control,
    orders: mpsc::Receiver<wp::Order>,
    pub(super) place: Place,
}

impl Server {
    pub(super) async fn new() -> Self {
        let place = Place::new().await;
        let blobs = BlobOptions::new(place.dir.path().join("blobs"));
        let options = ControlOptions {
            policy: Policy::default(),
            heartbeat_timeout: 60.0,
            worker_credential: String::new(),
            base_url: String::new(),
            retention: super::super::Retention::default(),
            gc_grace: Duration::from_secs(3600),
            models: Arc::new(NoModels),
            network_files_dir: place.dir.path().join("network"),
            secrets_key: place.dir.path().join("secrets.key"),
        };
        let blobs = Arc::new(BlobStore::open(blobs, Arc::new(SystemTime::now)).unwrap());
        let control =
            Control::open(options, place.meta.clone(), Arc::clone(&place.store), blobs).await.unwrap();
        // From here on the server's own are those that count.
        let place = Place { volumes: Arc::clone(control.volumes()), ..place };
        let (sender, orders) = mpsc::channel(64);
        control.links.attach("worker", sender);
        Self { control, orders, place }
    }

    /// Starts a container that has a Volume at `/data`.
    fn start(&self, task_id: &str, volume_id: &str) -> Container {
        let launch = Launch {
            task_id: task_id.to_owned(),
            function_id: "fu-1".to_owned(),
            worker_id: "worker".to_owned(),
            devices: Vec::new(),
            without_gpu: None,
        };
        let mount = |path: &str| pb::VolumeMount {
            volume_id: volume_id.to_owned(),
            mount_path: path.to_owned(),
            allow_background_commits: true,
            ..Default::default()
        };
        let definition = pb::Function {
            function_name: "train".to_owned(),
            volume_mounts: vec![mount("/data"), mount("/again")],
            ..Default::default()
        };
        let orders = self.control.volumes_of(&launch, &definition, "ap-1", "ap-1").unwrap();
        let [order] = orders.as_slice() else { panic!("one order for one Volume: {orders:?}") };
        assert_eq!((order.places.len(), order.background_commits), (2, true));
        let mut container = Container::new(&self.place, task_id, volume_id);
        container.seen = stack_of(order.stack.as_ref().unwrap()).unwrap();
        container.seen_version = order.version;
        container
    }

    async fn order(&mut self) -> Order {
        let order = tokio::time::timeout(Duration::from_secs(20), self.orders.recv()).await;
        order.expect("an order comes").unwrap().order.unwrap()
    }

    /// Answers the order to take with a change.
    async fn answer_take(&mut self, container: &mut Container, write: Option<(&str, &str)>) {
        let Order::TakeVolume(take) = self.order().await else { panic!("an order to take comes first") };
        let taken = match write {
            Some((path, text)) => taken(container, &self.place, &take.op_id, path, text),
            None => wp::VolumeTaken { clean: true, ..blank(container, &take.op_id) },
        };
        self.control.hear_taken("worker", taken);
    }

    async fn answer_show(&mut self, container: &mut Container, outcome: Option<Shown>) {
        let Order::ShowVolume(show) = self.order().await else { panic!("an order to show comes") };
        let outcome = outcome.unwrap_or_else(|| {
            container.seen = stack_of(show.stack.as_ref().unwrap()).unwrap();
            container.seen_version = show.version;
            Shown::Version(show.version)
        });
        self.control.hear_shown(wp::VolumeShown {
            op_id: show.op_id,
            task_id: show.task_id,
            volume_id: show.volume_id,
            outcome: Some(outcome),
        });
    }

    async fn kept(&mut self) -> u64 {
        match self.order().await {
            Order::VolumeKept(kept) => kept.sequence,
            other => panic!("an acknowledgement comes, not {other:?}"),
        }
    }

    fn log(&self) -> String {
        let entries = self.control.logs.between("ap-1", 0.0, f64::MAX, usize::MAX);
        entries.iter().map(|entry| entry.text.as_str()).collect()
    }
}

fn blank(container: &Container, op_id: &str) -> wp::VolumeTaken {
    wp::VolumeTaken {
        op_id: op_id.to_owned(),
        task_id: container.task_id.clone(),
        volume_id: container.volume_id.clone(),
        seen_version: container.seen_version,
        seen: Some(to_worker(&container.seen)),
        ..Default::default()
    }
}

fn taken(container: &mut Container, place: &Place, op_id: &str, path: &str, text: &str) -> wp::VolumeTaken {
    let blank = blank(container, op_id);
    let report = container.write(&place.store, path, text);
    wp::VolumeTaken { sequence: report.sequence, delta: report.delta.to_string(), clean: true, ..blank }
}

#[tokio::test]
async fn a_commit_is_in_the_history_when_it_returns() {
    let mut server = Server::new().await;
    let id = server.place.volume("weights").await;
    let mut container = server.start("ta-1", &id);
    let control = server.control.clone();
    let (committed, ()) = tokio::join!(control.commit_volume("ta-1", &id), async {
        server.answer_take(&mut container, Some(("a", "1"))).await;
        assert_eq!(server.kept().await, 1);
    });
    committed.unwrap();
    assert_eq!(server.place.files(&id).await, of(&[("a", "1")]));
    assert_eq!(server.place.volumes.head(&id).unwrap().record.function_name, "train");
    // It sees what it committed: nothing was to be shown.
    let (nothing, ()) = tokio::join!(control.commit_volume("ta-1", &id), async {
        server.answer_take(&mut container, None).await;
    });
    nothing.unwrap();
    assert!(server.orders.try_recv().is_err());
}

#[tokio::test]
async fn after_a_commit_beside_others_the_newest_version_is_shown() {
    let mut server = Server::new().await;
    let id = server.place.volume("weights").await;
    let mut container = server.start("ta-1", &id);
    server.place.upload(&id, &[("a", "theirs"), ("b", "2")]).await;
    let control = server.control.clone();
    let (committed, ()) = tokio::join!(control.commit_volume("ta-1", &id), async {
        server.answer_take(&mut container, Some(("a", "mine"))).await;
        assert_eq!(server.kept().await, 1);
        server.answer_show(&mut container, None).await;
    });
    committed.unwrap();
    assert_eq!(container.seen_version, 2);
    assert_eq!(server.place.files(&id).await, of(&[("a", "mine"), ("b", "2")]));
    assert!(
        server.log().contains("Volume weights: `a` was changed by upload as well (version 1)"),
        "{}",
        server.log()
    );
    // From here on it is as if it had started with version 2.
    let (committed, ()) = tokio::join!(control.commit_volume("ta-1", &id), async {
        server.answer_take(&mut container, Some(("a", "again"))).await;
        assert_eq!(server.kept().await, 2);
    });
    committed.unwrap();
    assert_eq!(server.place.volumes.head(&id).unwrap().record.conflicts, []);
}

#[tokio::test]
async fn a_reload_commits_first_what_was_changed() {
    let mut server = Server::new().await;
    let id = server.place.volume("weights").await;
    let mut container = server.start("ta-1", &id);
    server.place.upload(&id, &[("b", "2")]).await;
    let control = server.control.clone();
    let (reloaded, ()) = tokio::join!(control.reload_volume("ta-1", &id), async {
        server.answer_show(&mut container, Some(Shown::Changed(true))).await;
        server.answer_take(&mut container, Some(("a", "1"))).await;
        assert_eq!(server.kept().await, 1);
        server.answer_show(&mut container, None).await;
    });
    reloaded.unwrap();
    assert_eq!(container.seen_version, 2);
    assert_eq!(server.place.files(&id).await, of(&[("a", "1"), ("b", "2")]));
}

#[tokio::test]
async fn an_open_file_makes_a_reload_fail_with_the_words_of_the_worker() {
    let mut server = Server::new().await;
    let id = server.place.volume("weights").await;
    let mut container = server.start("ta-1", &id);
    let control = server.control.clone();
    let (reloaded, ()) = tokio::join!(control.reload_volume("ta-1", &id), async {
        server.answer_show(&mut container, Some(Shown::Busy("`a` is open in 7 (python)".into()))).await;
    });
    let status = tonic::Status::from(reloaded.unwrap_err());
    assert_eq!(
        (status.code(), status.message()),
        (tonic::Code::FailedPrecondition, "`a` is open in 7 (python)")
    );
}

#[tokio::test]
async fn only_who_has_it_mounted_can_commit() {
    let server = Server::new().await;
    let id = server.place.volume("weights").await;
    let refused = server.control.commit_volume("ta-2", &id).await.unwrap_err();
    assert!(refused.to_string().contains("does not have the Volume weights mounted"), "{refused}");
    assert_eq!(tonic::Status::from(refused).code(), tonic::Code::FailedPrecondition);
}

#[tokio::test]
async fn a_commit_is_no_success_while_an_earlier_change_is_missing() {
    let mut server = Server::new().await;
    let id = server.place.volume("weights").await;
    let mut container = server.start("ta-1", &id);
    let lost = taken(&mut container, &server.place, "", "a", "1");
    let second = taken(&mut container, &server.place, "", "b", "2");
    server.control.hear_taken("worker", second.clone());
    let control = server.control.clone();
    let (committed, ()) = tokio::join!(control.commit_volume("ta-1", &id), async {
        server.answer_take(&mut container, None).await;
    });
    assert!(matches!(committed, Err(CommitError::Owed(_))), "{committed:?}");
    assert_eq!(tonic::Status::from(committed.unwrap_err()).code(), tonic::Code::Unavailable);
    // The worker repeats both.
    server.control.hear_taken("worker", lost);
    server.control.hear_taken("worker", second);
    assert_eq!((server.kept().await, server.kept().await), (1, 2));
    let (committed, ()) = tokio::join!(control.commit_volume("ta-1", &id), async {
        server.answer_take(&mut container, None).await;
    });
    committed.unwrap();
    assert_eq!(server.place.files(&id).await, of(&[("a", "1"), ("b", "2")]));
}

#[tokio::test]
async fn the_end_of_a_container_is_known_after_all_that_it_changed() {
    let mut server = Server::new().await;
    let id = server.place.volume("weights").await;
    let mut container = server.start("ta-1", &id);
    for number in 0..20 {
        let report = taken(&mut container, &server.place, "", &format!("f{number}"), "x");
        server.control.hear_taken("worker", report);
    }
    server.control.hear_ended(wp::TaskEnded { task_id: "ta-1".to_owned(), ..Default::default() });
    assert_eq!(server.place.volumes.mounted(&id), 1, "it is not over yet");
    for sequence in 1..=20 {
        assert_eq!(server.kept().await, sequence);
    }
    while server.place.volumes.mounted(&id) > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(server.place.files(&id).await.len(), 20);
    server.control.hear_ended(wp::TaskEnded { task_id: "ta-2".to_owned(), ..Default::default() });
}

#[tokio::test]
async fn a_deleted_volume_ends_the_repetitions_and_its_user_hears_of_it() {
    let mut server = Server::new().await;
    let id = server.place.volume("weights").await;
    let mut container = server.start("ta-1", &id);
    server.place.volumes.delete(&id).await.unwrap();
    let report = taken(&mut container, &server.place, "", "a", "1");
    server.control.hear_taken("worker", report);
    assert_eq!(server.kept().await, 1);
    while !server.log().contains("was deleted") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let launch = Launch {
        task_id: "ta-2".to_owned(),
        function_id: "fu-1".to_owned(),
        worker_id: "worker".to_owned(),
        devices: Vec::new(),
        without_gpu: None,
    };
    let mount = pb::VolumeMount { volume_id: id.clone(), mount_path: "/data".into(), ..Default::default() };
    let definition =
        pb::Function { function_name: "serve".to_owned(), volume_mounts: vec![mount], ..Default::default() };
    let refused = server.control.volumes_of(&launch, &definition, "ap-1", "ap-1").unwrap_err();
    assert!(refused.starts_with(&format!("the Volume {id} does not exist")), "{refused}");
}

#[tokio::test]
async fn a_worker_that_goes_leaves_nobody_waiting() {
    let mut server = Server::new().await;
    let id = server.place.volume("weights").await;
    server.start("ta-1", &id);
    let control = server.control.clone();
    let (committed, ()) = tokio::join!(control.commit_volume("ta-1", &id), async {
        server.order().await;
        control.volumes.worker_gone("worker");
    });
    assert!(matches!(committed, Err(CommitError::Lost)), "{committed:?}");
}

#[tokio::test]
async fn mounts_that_could_never_be_made_are_refused() {
    let server = Server::new().await;
    let id = server.place.volume("weights").await;
    let mount = |path: &str, sub_path: &str| pb::VolumeMount {
        volume_id: id.clone(),
        mount_path: path.to_owned(),
        sub_path: Some(sub_path.to_owned()),
        ..Default::default()
    };
    let check = |mounts: &[pb::VolumeMount]| server.control.check_volume_mounts(mounts);
    check(&[mount("/data", ""), mount("/root/models", "/a/b"), mount("/tmp/x", "c")]).unwrap();
    for path in
        ["/", "/root", "/tmp", "/proc", "/proc/x", "/etc", "/__modal/x", "/pkg", "data", "/data/", "/a/../b"]
    {
        let refused = check(&[mount(path, "")]).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{path}");
        assert!(refused.message().contains(&format!("`{path}`")), "{refused}");
    }
    assert!(check(&[mount("/data", ""), mount("/data", "a")]).is_err(), "two at one place");
    assert!(check(&[mount("/data", "../x")]).is_err());
    let nameless = check(&[pb::VolumeMount { volume_id: String::new(), ..mount("/data", "") }]).unwrap_err();
    assert!(nameless.message().contains("was not looked up by the client"), "{nameless}");
    let unknown = pb::VolumeMount { volume_id: "vo-none".into(), ..mount("/data", "") };
    assert_eq!(check(&[unknown]).unwrap_err().code(), tonic::Code::NotFound);
}
