//! New versions: each once, each on top of the one before, nothing lost.

use homeport_meta::volume_versions;

use super::{Container, Place, file, of};
use crate::volumes::publish::Outcome;
use crate::volumes::{EditError, Settings, VolumeError};

#[tokio::test]
async fn an_edit_makes_a_version_and_one_that_changes_nothing_makes_none() {
    let place = Place::new().await;
    let id = place.volume("weights").await;
    assert_eq!(place.upload(&id, &[("a", "1"), ("dir/b", "22")]).await, 1);
    assert_eq!(place.upload(&id, &[("a", "3")]).await, 2);
    let nothing = |head: &homeport_content::Layered| Ok::<_, tonic::Status>(super::changed(head, |_| {}));
    assert_eq!(place.volumes.publish_edit(&id, "upload", nothing).await.unwrap(), 2);
    assert_eq!(place.files(&id).await, of(&[("a", "3"), ("dir/b", "22")]));
    let head = place.volumes.head(&id).unwrap();
    let record = &head.record;
    assert_eq!((record.files, record.bytes, record.added, record.changed), (2, 3, 0, 1));

    let place = place.again().await;
    assert_eq!(place.volumes.head(&id).unwrap().record, head.record);
    assert_eq!(place.files(&id).await, of(&[("a", "3"), ("dir/b", "22")]));
}

#[tokio::test]
async fn an_editor_that_gives_up_changes_nothing() {
    let place = Place::new().await;
    let id = place.volume("weights").await;
    let refused = place.volumes.publish_edit(&id, "upload", |_| Err(tonic::Status::not_found("x"))).await;
    assert!(matches!(refused, Err(EditError::Refused(status)) if status.message() == "x"));
    assert_eq!(place.volumes.head(&id).unwrap().number(), 0);
}

#[tokio::test]
async fn a_take_is_published_once_also_after_a_restart() {
    let place = Place::new().await;
    let id = place.volume("weights").await;
    let mut container = Container::new(&place, "ta-1", &id);
    let first = container.write(&place.store, "a", "1");
    let second = container.write(&place.store, "a", "2");
    let early = place.volumes.publish_taken(second.clone()).await;
    assert!(matches!(early, Err(VolumeError::OutOfOrder { expected: 1, .. })), "{early:?}");
    for report in [&first, &second] {
        let outcome = place.volumes.publish_taken(report.clone()).await.unwrap();
        assert!(matches!(outcome, Outcome::Published { merged: false, .. }), "{outcome:?}");
    }
    let place = place.again().await;
    for report in [first, second] {
        assert_eq!(place.volumes.publish_taken(report).await.unwrap(), Outcome::Known);
    }
    assert_eq!(place.volumes.head(&id).unwrap().number(), 2);
    assert_eq!(place.files(&id).await, of(&[("a", "2")]));
}

#[tokio::test]
async fn a_take_of_a_deleted_volume_is_gone() {
    let place = Place::new().await;
    let id = place.volume("weights").await;
    let report = Container::new(&place, "ta-1", &id).write(&place.store, "a", "1");
    assert!(place.volumes.delete(&id).await.unwrap());
    assert_eq!(place.volumes.publish_taken(report).await.unwrap(), Outcome::Gone);
}

#[tokio::test]
async fn different_files_of_two_containers_merge() {
    let place = Place::new().await;
    let id = place.volume("weights").await;
    place.upload(&id, &[("base", "0")]).await;
    let (mut one, mut two) = (Container::new(&place, "ta-1", &id), Container::new(&place, "ta-2", &id));
    let reports = [
        one.write(&place.store, "one/a", "1"),
        two.write(&place.store, "two/b", "2"),
        one.write(&place.store, "one/c", "3"),
        two.change(&place.store, |edit| edit.remove(b"base", false).unwrap()),
    ];
    for report in reports {
        let Outcome::Published { version, .. } = place.volumes.publish_taken(report).await.unwrap() else {
            panic!("every change is one")
        };
        assert_eq!(version.record.conflicts, []);
    }
    assert_eq!(place.files(&id).await, of(&[("one/a", "1"), ("one/c", "3"), ("two/b", "2")]));
}

#[tokio::test]
async fn of_the_same_file_the_last_commit_counts_and_the_other_is_named() {
    let place = Place::new().await;
    let id = place.volume("weights").await;
    let (mut one, mut two) = (Container::new(&place, "ta-1", &id), Container::new(&place, "ta-2", &id));
    place.volumes.publish_taken(one.write(&place.store, "a", "of one")).await.unwrap();
    let outcome = place.volumes.publish_taken(two.write(&place.store, "a", "of two")).await.unwrap();
    let Outcome::Published { version, merged: true } = outcome else { panic!("{outcome:?}") };
    let [conflict] = version.record.conflicts.as_slice() else { panic!("{version:?}") };
    assert_eq!((&conflict.path[..], conflict.lost_version, conflict.lost_removed), (&b"a"[..], 1, false));
    assert_eq!(conflict.lost_by, "f of ta-1");
    assert_eq!(place.files(&id).await, of(&[("a", "of two")]));

    let back = place.volumes.restore(&id, "1", vec![b"a".to_vec()]).await.unwrap();
    assert_eq!(back, 3);
    assert_eq!(place.files(&id).await, of(&[("a", "of one")]));
}

#[tokio::test]
async fn versions_that_were_dropped_between_are_merged_with_all_the_same() {
    let place = Place::new().await;
    let id = place.volume("weights").await;
    place.upload(&id, &[("dir/old", "0")]).await;
    let mut container = Container::new(&place, "ta-1", &id);
    for number in 0..6 {
        place.upload(&id, &[(&format!("dir/new-{number}"), "n"), ("both", &number.to_string())]).await;
    }
    volume_versions::delete(&place.meta, &id, &[1, 2, 3, 5]).await.unwrap();
    let report = container.change(&place.store, |edit| {
        edit.remove(b"dir", true).unwrap();
        edit.put_leaf(b"both", file("mine")).unwrap();
    });
    let outcome = place.volumes.publish_taken(report).await.unwrap();
    let Outcome::Published { version, .. } = outcome else { panic!("{outcome:?}") };
    let mut expected = of(&[("both", "mine")]);
    expected.extend((0..6).map(|number| (format!("dir/new-{number}"), "n".to_owned())));
    assert_eq!(place.files(&id).await, expected, "what others added below the directory stays");
    let lost: Vec<u64> = version.record.conflicts.iter().map(|conflict| conflict.lost_version).collect();
    assert!(lost.iter().all(|number| [4, 6, 7].contains(number)) && !lost.is_empty(), "{lost:?}");
}

#[tokio::test]
async fn an_edit_beyond_the_quota_is_refused_and_one_that_makes_room_is_not() {
    let place = Place::new().await;
    let id = place.volume("weights").await;
    place.upload(&id, &[("a", "12345"), ("b", "12345")]).await;
    let quota = Settings { quota_bytes: Some(7), ..Default::default() };
    place.volumes.configure(&id, quota).await.unwrap();
    let edit = |path: &'static str, text: &'static str| {
        move |head: &homeport_content::Layered| {
            Ok::<_, tonic::Status>(super::changed(head, |edit| {
                edit.put_leaf(path.as_bytes(), file(text)).unwrap();
            }))
        }
    };
    let full = place.volumes.publish_edit(&id, "upload", edit("c", "1")).await.unwrap_err();
    assert!(full.to_string().contains("the Volume weights may hold 7 bytes and would hold 11"), "{full}");
    let status = tonic::Status::from(full);
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    place.volumes.publish_edit(&id, "upload", edit("a", "1")).await.unwrap();
    // What a container wrote is on disk already: refusing it would lose it.
    let report = Container::new(&place, "ta-1", &id).write(&place.store, "d", "12345");
    assert!(matches!(place.volumes.publish_taken(report).await.unwrap(), Outcome::Published { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_at_the_same_time_all_come_into_the_history() {
    let place = std::sync::Arc::new(Place::new().await);
    let id = place.volume("weights").await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let (own, volume) = (place.clone(), id.clone());
        writers.spawn(async move {
            let (place, id) = (own, volume);
            for number in 0..10 {
                place.upload(&id, &[(&format!("api-{writer}/{number}"), "x")]).await;
            }
        });
        let (place, id) = (place.clone(), id.clone());
        writers.spawn(async move {
            let mut container = Container::new(&place, &format!("ta-{writer}"), &id);
            for number in 0..10 {
                let report = container.write(&place.store, &format!("task-{writer}/{number}"), "x");
                place.volumes.publish_taken(report).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    assert_eq!(place.volumes.head(&id).unwrap().number(), 80);
    assert_eq!(place.files(&id).await.len(), 80);
    let log = place.volumes.log(&id, 0).await.unwrap();
    assert_eq!(
        log.iter().map(|entry| entry.version.number).collect::<Vec<_>>(),
        Vec::from_iter((1..=80).rev())
    );
    assert_eq!(log[0].version.files, 80);
}
