//! The history: read, restored, tagged, forked, dropped.

use super::{Container, Place, file, of};
use crate::volumes::{DiffKind, Settings, VolumeError};

async fn three_versions(place: &Place) -> String {
    let id = place.volume("weights").await;
    place.upload(&id, &[("a", "1"), ("dir/b", "1"), ("dir/c", "1")]).await;
    place.upload(&id, &[("a", "2"), ("new", "2")]).await;
    let edit = |head: &homeport_content::Layered| {
        Ok::<_, tonic::Status>(super::changed(head, |edit| edit.remove(b"dir", true).unwrap()))
    };
    place.volumes.publish_edit(&id, "rm dir", edit).await.unwrap();
    id
}

#[tokio::test]
async fn the_log_tells_what_happened_newest_first() {
    let place = Place::new().await;
    let id = three_versions(&place).await;
    let log = place.volumes.log(&id, 0).await.unwrap();
    let told: Vec<_> = log
        .iter()
        .map(|entry| {
            let version = &entry.version;
            (version.number, version.reason.as_str(), version.added, version.changed, version.removed)
        })
        .collect();
    assert_eq!(told, [(3, "rm dir", 0, 0, 2), (2, "upload", 1, 1, 0), (1, "upload", 3, 0, 0)]);
    assert_eq!(place.volumes.log(&id, 1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_diff_names_each_path_once() {
    let place = Place::new().await;
    let id = three_versions(&place).await;
    let told = |entries: Vec<crate::volumes::DiffEntry>| {
        let mut told: Vec<_> = entries
            .into_iter()
            .map(|entry| (String::from_utf8(entry.path).unwrap(), entry.kind, entry.directory))
            .filter(|(path, ..)| !path.is_empty())
            .collect();
        told.sort_by(|a, b| a.0.cmp(&b.0));
        told
    };
    let last = told(place.volumes.diff(&id, "", "").await.unwrap());
    assert_eq!(
        last,
        [
            ("dir".to_owned(), DiffKind::Removed, true),
            ("dir/b".to_owned(), DiffKind::Removed, false),
            ("dir/c".to_owned(), DiffKind::Removed, false)
        ]
    );
    let back = told(place.volumes.diff(&id, "3", "1").await.unwrap());
    let kinds: Vec<_> = back.iter().map(|(path, kind, _)| (path.as_str(), *kind)).collect();
    assert_eq!(
        kinds,
        [
            ("a", DiffKind::Changed),
            ("dir", DiffKind::Added),
            ("dir/b", DiffKind::Added),
            ("dir/c", DiffKind::Added),
            ("new", DiffKind::Removed)
        ]
    );
    assert_eq!(place.volumes.diff(&id, "2", "2").await.unwrap(), []);
    let first = place.volumes.diff(&id, "0", "1").await.unwrap();
    assert_eq!(first.iter().filter(|entry| !entry.directory).count(), 3);
}

#[tokio::test]
async fn a_restore_brings_back_all_or_some_paths_as_a_new_version() {
    let place = Place::new().await;
    let id = three_versions(&place).await;
    assert_eq!(place.volumes.restore(&id, "1", vec![b"/dir/b".to_vec()]).await.unwrap(), 4);
    assert_eq!(place.files(&id).await, of(&[("a", "2"), ("dir/b", "1"), ("new", "2")]));
    // A path that was not there in that version goes.
    assert_eq!(place.volumes.restore(&id, "1", vec![b"new".to_vec(), b"dir".to_vec()]).await.unwrap(), 5);
    assert_eq!(place.files(&id).await, of(&[("a", "2"), ("dir/b", "1"), ("dir/c", "1")]));
    assert_eq!(place.volumes.restore(&id, "2", vec![]).await.unwrap(), 6);
    assert_eq!(place.files(&id).await, of(&[("a", "2"), ("dir/b", "1"), ("dir/c", "1"), ("new", "2")]));
    assert_eq!(place.volumes.restore(&id, "2", vec![]).await.unwrap(), 6, "nothing is different");
    assert_eq!(place.volumes.restore(&id, "0", vec![]).await.unwrap(), 7);
    assert_eq!(place.files(&id).await, of(&[]));
    let missing = place.volumes.restore(&id, "1", vec![b"nowhere".to_vec()]).await;
    assert!(matches!(missing, Err(VolumeError::NoPath { version: 1, .. })), "{missing:?}");
    let log = place.volumes.log(&id, 0).await.unwrap();
    assert_eq!(log[0].version.reason, "restore of 0");
    assert_eq!(log[3].version.reason, "restore of /dir/b of 1");
}

#[tokio::test]
async fn a_tag_names_one_version_and_moves() {
    let place = Place::new().await;
    let id = three_versions(&place).await;
    let volumes = &place.volumes;
    assert_eq!(volumes.tag(&id, "1", "good", false).await.unwrap(), 1);
    assert_eq!(volumes.tag(&id, "", "good", false).await.unwrap(), 3);
    assert_eq!(volumes.version(&id, "good").await.unwrap().number(), 3);
    for wrong in ["12", "a b", ""] {
        assert!(matches!(volumes.tag(&id, "1", wrong, false).await, Err(VolumeError::Tag(_))), "{wrong}");
    }
    place.upload(&id, &[("z", "1")]).await;
    let place = place.again().await;
    let volumes = &place.volumes;
    assert_eq!(volumes.version(&id, "good").await.unwrap().number(), 3);
    assert_eq!(volumes.log(&id, 0).await.unwrap()[1].pinned_by, "tag good");
    assert_eq!(volumes.tag(&id, "", "good", true).await.unwrap(), 3);
    assert!(matches!(volumes.version(&id, "good").await, Err(VolumeError::NoVersion { .. })));
}

#[tokio::test]
async fn a_fork_begins_with_what_is_there_and_goes_its_own_way() {
    let place = Place::new().await;
    let id = three_versions(&place).await;
    let (fork, number) = place.volumes.fork(&id, "fork", "1").await.unwrap();
    assert_eq!(number, 1);
    assert!(matches!(place.volumes.fork(&id, "fork", "1").await, Err(VolumeError::Exists { .. })));
    // Forks are worth nothing if they can't be merged into.
    let mut container = Container::new(&place, "ta-1", &fork);
    place.upload(&fork, &[("mine", "x")]).await;
    place.volumes.publish_taken(container.write(&place.store, "own", "y")).await.unwrap();
    place.volumes.delete(&id).await.unwrap();
    let place = place.again().await;
    let expected = of(&[("a", "1"), ("dir/b", "1"), ("dir/c", "1"), ("mine", "x"), ("own", "y")]);
    assert_eq!(place.files(&fork).await, expected);
    assert_eq!(place.volumes.named("fork", "main").unwrap().id, fork);
    let log = place.volumes.log(&fork, 0).await.unwrap();
    assert_eq!((log[2].version.reason.as_str(), log[2].version.files), ("fork of weights at 1", 3));
}

#[tokio::test]
async fn old_versions_are_dropped_by_policy_and_their_layers_are_no_roots_any_more() {
    let place = Place::new().await;
    let id = place.volume("weights").await;
    let policy = Settings { keep_versions: Some(5), ..Default::default() };
    place.volumes.configure(&id, policy).await.unwrap();
    for number in 0..12 {
        place.upload(&id, &[("a", &number.to_string())]).await;
    }
    place.volumes.tag(&id, "2", "good", false).await.unwrap();
    let entry = place.volumes.entry(&id).unwrap();
    place.volumes.prune_now(&id, &entry).await.unwrap();
    let log = place.volumes.log(&id, 0).await.unwrap();
    let kept: Vec<u64> = log.iter().map(|entry| entry.version.number).collect();
    assert_eq!(kept, [12, 11, 10, 9, 2]);
    let roots = place.volumes.roots().await.unwrap();
    assert_eq!((roots.len(), roots[0].stacks.len(), roots[0].deltas.len()), (1, 5, 5));
    assert_eq!(roots[0].volume.name, "weights");
    assert!(matches!(place.volumes.version(&id, "3").await, Err(VolumeError::NoVersion { .. })));

    place.clock.forward(31.0 * 24.0 * 3600.0);
    place.volumes.prune_all().await;
    let log = place.volumes.log(&id, 0).await.unwrap();
    assert_eq!(log.iter().map(|entry| entry.version.number).collect::<Vec<_>>(), [12, 2]);
}

#[tokio::test]
async fn a_container_that_commits_for_days_keeps_counting_while_its_old_commits_go() {
    let place = Place::new().await;
    let id = place.volume("weights").await;
    let policy = Settings { keep_versions: Some(4), ..Default::default() };
    place.volumes.configure(&id, policy).await.unwrap();
    let mut container = Container::new(&place, "ta-1", &id);
    for number in 0..20 {
        place.clock.forward(24.0 * 3600.0);
        let report = container.change(&place.store, |edit| {
            edit.put_leaf(format!("f{number}").as_bytes(), file("x")).unwrap();
        });
        place.volumes.publish_taken(report).await.unwrap();
        let entry = place.volumes.entry(&id).unwrap();
        place.volumes.prune_now(&id, &entry).await.unwrap();
    }
    assert_eq!(place.files(&id).await.len(), 20);
    assert_eq!(place.volumes.log(&id, 0).await.unwrap().len(), 4);
}
