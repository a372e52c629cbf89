//! The tables of Volumes through a real database file.

#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

use homeport_meta::{Meta, blocks, volume_takes, volume_versions, volumes};

async fn open() -> (tempfile::TempDir, Meta) {
    let dir = tempfile::tempdir().unwrap();
    let meta = Meta::open(dir.path()).await.unwrap();
    (dir, meta)
}

fn volume(id: &str, name: &str, created_at: i64) -> volumes::Volume {
    volumes::Volume {
        id: id.into(),
        name: name.into(),
        environment: "main".into(),
        created_at,
        record: vec![0, 255],
    }
}

fn version(number: i64, record: &[u8]) -> volume_versions::Version {
    volume_versions::Version { volume_id: "vo-1".into(), number, created_at: number, record: record.to_vec() }
}

fn take(sequence: i64, number: i64) -> volume_takes::Take {
    volume_takes::Take { task_id: "ta-1".into(), volume_id: "vo-1".into(), sequence, number }
}

#[tokio::test]
async fn volumes_are_found_by_name_and_renamed() {
    let (_dir, meta) = open().await;
    for one in [volume("vo-1", "weights", 1), volume("vo-2", "other", 2)] {
        volumes::put(&meta, &one).await.unwrap();
    }
    assert_eq!(volumes::find(&meta, "main", "weights").await.unwrap().unwrap().id, "vo-1");
    assert_eq!(volumes::find(&meta, "dev", "weights").await.unwrap(), None);
    volumes::put(&meta, &volume("vo-1", "renamed", 1)).await.unwrap();
    assert_eq!(volumes::find(&meta, "main", "weights").await.unwrap(), None);
    assert_eq!(volumes::get(&meta, "vo-1").await.unwrap().unwrap().name, "renamed");
    let all: Vec<String> = volumes::list(&meta).await.unwrap().into_iter().map(|volume| volume.id).collect();
    assert_eq!(all, ["vo-1", "vo-2"]);
}

#[tokio::test]
async fn a_number_is_given_once_and_its_take_goes_with_it() {
    let (_dir, meta) = open().await;
    volumes::put(&meta, &volume("vo-1", "weights", 1)).await.unwrap();
    assert_eq!(volume_versions::newest(&meta, "vo-1").await.unwrap(), None);
    assert!(volume_versions::insert(&meta, &version(1, b"a"), Some(&take(1, 1))).await.unwrap());
    assert!(!volume_versions::insert(&meta, &version(1, b"b"), Some(&take(2, 1))).await.unwrap());
    assert_eq!(volume_versions::newest(&meta, "vo-1").await.unwrap(), Some(version(1, b"a")));
    assert_eq!(volume_takes::last_sequence(&meta, "ta-1", "vo-1").await.unwrap(), 1);
    assert_eq!(volume_takes::last_sequence(&meta, "ta-2", "vo-1").await.unwrap(), 0);

    for number in 2..5 {
        let one = take(number, number);
        assert!(volume_versions::insert(&meta, &version(number, b""), Some(&one)).await.unwrap());
    }
    let after = volume_versions::list_after(&meta, "vo-1", 2).await.unwrap();
    assert_eq!(after.iter().map(|version| version.number).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(volume_takes::forget(&meta, "ta-1", "vo-1", 3).await.unwrap(), 3);
    assert_eq!(volume_takes::last_sequence(&meta, "ta-1", "vo-1").await.unwrap(), 4);
}

#[tokio::test]
async fn only_versions_that_are_there_are_replaced() {
    let (_dir, meta) = open().await;
    volumes::put(&meta, &volume("vo-1", "weights", 1)).await.unwrap();
    for number in 1..4 {
        assert!(volume_versions::insert(&meta, &version(number, b""), None).await.unwrap());
    }
    assert_eq!(volume_versions::delete(&meta, "vo-1", &[1, 7]).await.unwrap(), 1);
    let all = volume_versions::list_all(&meta).await.unwrap();
    assert_eq!(all.iter().map(|version| version.number).collect::<Vec<_>>(), [2, 3]);
    volume_versions::replace(&meta, &[version(1, b"x"), version(2, b"y")]).await.unwrap();
    assert_eq!(volume_versions::get(&meta, "vo-1", 1).await.unwrap(), None);
    assert_eq!(volume_versions::get(&meta, "vo-1", 2).await.unwrap().unwrap().record, b"y");
}

#[tokio::test]
async fn with_a_volume_goes_all_that_was_kept_for_it() {
    let (_dir, meta) = open().await;
    volume_versions::found(&meta, &volume("vo-1", "fork", 1), &version(1, b"a")).await.unwrap();
    assert!(volume_versions::found(&meta, &volume("vo-1", "fork", 1), &version(1, b"a")).await.is_err());
    volume_takes::put(&meta, &take(1, 1)).await.unwrap();
    assert!(volumes::delete(&meta, "vo-1").await.unwrap());
    assert!(!volumes::delete(&meta, "vo-1").await.unwrap());
    assert_eq!(volume_versions::newest(&meta, "vo-1").await.unwrap(), None);
    assert_eq!(volume_takes::last_sequence(&meta, "ta-1", "vo-1").await.unwrap(), 0);
    let orphan = volume_versions::insert(&meta, &version(2, b""), None).await;
    assert!(orphan.is_err(), "a version needs its Volume");
}

#[tokio::test]
async fn blocks_that_nobody_uses_are_forgotten() {
    let (_dir, meta) = open().await;
    let block = |sha256: &str, used_at| blocks::Block {
        sha256: sha256.into(),
        digest: "d".into(),
        start: 5 << 40,
        size: 3,
        used_at,
    };
    blocks::put_all(&meta, &[block("a", 1), block("b", 2), block("c", 3)]).await.unwrap();
    let asked = ["a".to_owned(), "x".to_owned(), "c".to_owned()];
    let found = blocks::get_all(&meta, &asked).await.unwrap();
    assert_eq!(found, [block("a", 1), block("c", 3)]);
    blocks::touch(&meta, &asked, 9).await.unwrap();
    assert_eq!(blocks::get(&meta, "c").await.unwrap(), Some(block("c", 9)));
    assert_eq!(blocks::sweep(&meta, 5).await.unwrap(), 1);
    assert_eq!(blocks::get(&meta, "b").await.unwrap(), None);
    assert!(blocks::delete(&meta, "a").await.unwrap());
}
