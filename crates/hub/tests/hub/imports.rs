//! What an import does to the store and to the catalog.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use homeport_hub::{DirectoryCatalog, ImportError, ImportRequest, RepoId, import_model};

use crate::fixture::{Hub, write_model};

fn repo(name: &str) -> RepoId {
    name.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn importing_the_same_files_again_changes_nothing() {
    let (hub, from, copy) = (Hub::new(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_model(from.path(), 1);
    let first = hub.try_import(from.path(), "org/tiny", "main", 1).await.unwrap();
    assert!(first.changed);
    let before = hub.state.catalog.get(&repo("org/tiny")).await.unwrap();
    // A copy has other times; the hub keeps none, so it is the same model.
    write_model(copy.path(), 1);
    let again = hub.try_import(copy.path(), "org/tiny", "main", 2).await.unwrap();
    assert!(!again.changed);
    assert_eq!((again.commit, again.snapshot), (first.commit, first.snapshot));
    assert_eq!(hub.state.catalog.get(&repo("org/tiny")).await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_import_moves_its_branch_and_old_commits_stay() {
    let (hub, from) = (Hub::new(), tempfile::tempdir().unwrap());
    write_model(from.path(), 1);
    let old = hub.import(from.path(), "org/tiny", "main").await;
    hub.import(from.path(), "org/tiny", "v1").await;
    write_model(from.path(), 2);
    let new = hub.import(from.path(), "org/tiny", "main").await;
    assert_ne!(old.commit, new.commit);
    let record = hub.state.catalog.get(&repo("org/tiny")).await.unwrap().unwrap();
    assert_eq!(record.resolve("main").unwrap().hash, new.commit);
    assert_eq!(record.resolve("v1").unwrap().hash, old.commit);
    assert_eq!(record.resolve(&old.commit.to_string()).unwrap().snapshot, old.snapshot);
    assert_eq!(record.commits.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imports_at_the_same_time_all_arrive() {
    let hub = Arc::new(Hub::new());
    let mut imports = tokio::task::JoinSet::new();
    for number in 0..6_u8 {
        let hub = hub.clone();
        imports.spawn(async move {
            let from = tempfile::tempdir().unwrap();
            fs::write(from.path().join("config.json"), [number]).unwrap();
            // Another process would open a catalog of its own.
            let catalog = DirectoryCatalog::open(&hub.dir.path().join("models")).unwrap();
            let request = ImportRequest {
                directory: from.path().to_owned(),
                repo: repo("org/tiny"),
                branch: format!("b{number}").parse().unwrap(),
                now: 1,
            };
            let store = hub.state.store.clone();
            import_model(store, &catalog, request, |_| {}).await.unwrap();
        });
    }
    imports.join_all().await;
    let record = hub.state.catalog.get(&repo("org/tiny")).await.unwrap().unwrap();
    assert_eq!((record.branches.len(), record.commits.len(), record.version), (6, 6, 6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_ends_at_the_totals() {
    let (hub, from) = (Hub::new(), tempfile::tempdir().unwrap());
    write_model(from.path(), 1);
    let (most, total) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let seen = (most.clone(), total.clone());
    let request = ImportRequest {
        directory: from.path().to_owned(),
        repo: repo("org/tiny"),
        branch: Default::default(),
        now: 1,
    };
    let outcome = import_model(hub.state.store.clone(), &*hub.state.catalog, request, move |now| {
        assert!(now.bytes_done <= now.bytes_total && now.files_done <= now.files_total);
        seen.0.fetch_max(now.bytes_done, Ordering::Relaxed);
        seen.1.store(now.bytes_total, Ordering::Relaxed);
    })
    .await
    .unwrap();
    assert_eq!(most.load(Ordering::Relaxed), outcome.bytes);
    assert_eq!(total.load(Ordering::Relaxed), outcome.bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_fails_leaves_no_model_and_no_object() {
    let (hub, from) = (Hub::new(), tempfile::tempdir().unwrap());
    write_model(from.path(), 1);
    std::os::unix::fs::symlink("/etc/passwd", from.path().join("x")).unwrap();
    let refused = hub.try_import(from.path(), "org/tiny", "main", 1).await.unwrap_err();
    assert!(matches!(refused, ImportError::LinkLeadsOutside { .. }), "{refused}");
    let missing = hub.dir.path().join("nowhere");
    let refused = hub.try_import(&missing, "org/tiny", "main", 1).await.unwrap_err();
    assert!(refused.to_string().contains("nowhere"), "{refused}");
    assert_eq!(hub.state.catalog.get(&repo("org/tiny")).await.unwrap(), None);
    let objects = fs::read_dir(hub.state.store.objects_dir()).unwrap().count();
    assert_eq!(objects, 0);
}
