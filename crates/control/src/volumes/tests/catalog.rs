//! Which Volumes there are, and how long.

use homeport_proto::client::VolumeFsVersion;

use super::Place;
use crate::volumes::{NewVolume, Settings, VolumeError};

fn named(name: &str) -> NewVolume {
    NewVolume {
        name: name.to_owned(),
        environment: "main".to_owned(),
        api_version: VolumeFsVersion::V2,
        ..Default::default()
    }
}

#[tokio::test]
async fn a_name_is_given_once_in_its_environment() {
    let place = Place::new().await;
    let volumes = &place.volumes;
    volumes.create("vo-1", named("a")).await.unwrap();
    // The repetition of a request whose answer was lost.
    assert_eq!(volumes.create("vo-1", named("a")).await.unwrap().id, "vo-1");
    assert!(matches!(volumes.create("vo-2", named("a")).await, Err(VolumeError::Exists { .. })));
    let elsewhere = NewVolume { environment: "dev".to_owned(), ..named("a") };
    volumes.create("vo-3", elsewhere).await.unwrap();
    for wrong in ["a b", "", "ü", &"x".repeat(65)] {
        let refused = volumes.rename("vo-1", wrong).await;
        assert!(matches!(refused, Err(VolumeError::Name(_))), "{wrong}: {refused:?}");
    }
    volumes.create("vo-4", named("b")).await.unwrap();
    assert!(matches!(volumes.rename("vo-4", "a").await, Err(VolumeError::Exists { .. })));
    volumes.rename("vo-4", "c").await.unwrap();

    let place = place.again().await;
    assert_eq!(place.volumes.named("c", "main").unwrap().id, "vo-4");
    assert!(matches!(place.volumes.named("b", "main"), Err(VolumeError::Unknown { .. })));
    assert_eq!(place.volumes.find("vo-4").unwrap().api_version(), VolumeFsVersion::V2);
}

#[tokio::test]
async fn a_list_is_read_on_from_a_time_without_gaps() {
    let place = Place::new().await;
    for name in ["a", "b", "c"] {
        // The clock stands still.
        place.volume(name).await;
    }
    let list = place.volumes.list("main");
    assert_eq!(list.iter().map(|volume| volume.name.as_str()).collect::<Vec<_>>(), ["c", "b", "a"]);
    assert!(list.windows(2).all(|pair| pair[0].created_at > pair[1].created_at));
}

#[tokio::test]
async fn a_deleted_volume_stays_deleted_and_a_repeated_deletion_is_no_mistake() {
    let place = Place::new().await;
    let id = place.volume("a").await;
    place.upload(&id, &[("x", "1")]).await;
    assert!(place.volumes.delete(&id).await.unwrap());
    assert!(!place.volumes.delete(&id).await.unwrap());
    assert!(matches!(place.volumes.delete("vo-other").await, Err(VolumeError::Missing(_))));
    let place = place.again().await;
    assert!(matches!(place.volumes.find(&id), Err(VolumeError::Missing(_))));
    assert_eq!(place.volumes.roots().await.unwrap().len(), 0);
}

#[tokio::test]
async fn an_ephemeral_volume_ends_when_its_client_is_silent() {
    let place = Place::new().await;
    let ephemeral = NewVolume { ephemeral: true, ..Default::default() };
    place.volumes.create("vo-e", ephemeral).await.unwrap();
    place.clock.forward(800.0);
    place.volumes.beat("vo-e");
    place.clock.forward(800.0);
    assert_eq!(place.volumes.silent(900.0), [""; 0]);
    // After a restart its client has all the time once more.
    let place = place.again().await;
    place.clock.forward(800.0);
    assert_eq!(place.volumes.silent(900.0), [""; 0]);
    place.clock.forward(200.0);
    assert_eq!(place.volumes.silent(900.0), ["vo-e"]);
}

#[tokio::test]
async fn the_volumes_of_an_app_end_with_it() {
    let place = Place::new().await;
    for (id, app_id) in [("vo-1", "ap-lives"), ("vo-2", "ap-dead"), ("vo-3", "ap-lives")] {
        let new = NewVolume { app_id: app_id.to_owned(), ..Default::default() };
        place.volumes.create(id, new).await.unwrap();
    }
    let place = place.again().await;
    assert!(place.volumes.find("vo-2").is_err(), "its app ended just before a crash");
    place.volumes.delete_of_app("ap-lives").await.unwrap();
    assert!(place.volumes.find("vo-1").is_err() && place.volumes.find("vo-3").is_err());
}

#[tokio::test]
async fn settings_change_one_by_one_and_stay() {
    let place = Place::new().await;
    let id = place.volume("a").await;
    let first = Settings { keep_versions: Some(3), strict_reload: Some(true), ..Default::default() };
    place.volumes.configure(&id, first).await.unwrap();
    let second = Settings { early_copies: Some(vec!["*.mdb".to_owned()]), ..Default::default() };
    place.volumes.configure(&id, second).await.unwrap();
    let place = place.again().await;
    let volume = place.volumes.find(&id).unwrap();
    assert_eq!((volume.keep_versions, volume.strict_reload), (3, true));
    assert_eq!(volume.early_copies, ["*.mdb"]);
}
