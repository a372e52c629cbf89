//! Last uses: what was used stays, what was not goes, also when both happen at once.

#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

use homeport_meta::uses::{self, Kind, PRECISION};
use homeport_meta::{Meta, images, steps};

async fn open() -> (tempfile::TempDir, Meta) {
    let dir = tempfile::tempdir().unwrap();
    let meta = Meta::open(dir.path()).await.unwrap();
    (dir, meta)
}

fn step(key: &str) -> steps::Step {
    steps::Step { cache_key: key.into(), snapshot: format!("snapshot of {key}"), config: vec![1] }
}

#[tokio::test]
async fn what_is_found_stays_and_what_is_not_goes() {
    let (_dir, meta) = open().await;
    for key in ["used", "forgotten", "client layer 1"] {
        steps::put(&meta, &step(key)).await.unwrap();
    }
    // Nothing is known of them, so they are not old.
    assert_eq!(uses::sweep(&meta, Kind::Steps, i64::MAX, None).await.unwrap(), 0);
    assert_eq!(uses::stamp(&meta, Kind::Steps, 1_000).await.unwrap(), 3);
    assert_eq!(uses::stamp(&meta, Kind::Steps, 2_000).await.unwrap(), 0);
    let now = 1_000 + 2 * PRECISION;
    assert_eq!(uses::step(&meta, "used", now).await.unwrap(), Some(step("used")));
    assert_eq!(uses::step(&meta, "missing", now).await.unwrap(), None);
    assert_eq!(uses::sweep(&meta, Kind::Steps, now, Some("client layer")).await.unwrap(), 1);
    let left = uses::list(&meta, Kind::Steps).await.unwrap();
    assert_eq!(left, [("client layer 1".to_owned(), 1_000), ("used".to_owned(), now)]);
    assert_eq!(uses::step_snapshots(&meta).await.unwrap().len(), 2);
    // Within a day nothing is written.
    uses::step(&meta, "used", now + PRECISION - 1).await.unwrap().unwrap();
    assert_eq!(uses::list(&meta, Kind::Steps).await.unwrap(), left);
    // What is made again is new again.
    steps::put(&meta, &step("client layer 1")).await.unwrap();
    assert_eq!(uses::sweep(&meta, Kind::Steps, now, None).await.unwrap(), 0);
}

#[tokio::test]
async fn a_lookup_beside_a_removal_finds_nothing_or_keeps_the_row() {
    let (_dir, meta) = open().await;
    let now = 10 * PRECISION;
    for round in 0..50 {
        let key = format!("{round}");
        steps::put(&meta, &step(&key)).await.unwrap();
        uses::stamp(&meta, Kind::Steps, 1).await.unwrap();
        let (found, swept) = tokio::join!(
            uses::step(&meta, &key, now),
            uses::sweep(&meta, Kind::Steps, now - PRECISION, None)
        );
        swept.unwrap();
        let left = steps::get(&meta, &key).await.unwrap();
        assert_eq!(found.unwrap(), left, "{round}");
        steps::delete(&meta, &key).await.unwrap();
    }
}

#[tokio::test]
async fn uses_are_noted_forward_only() {
    let (_dir, meta) = open().await;
    let image =
        images::Image { id: "im-1".into(), cache_key: "k".into(), state: "ready".into(), record: vec![] };
    images::put(&meta, &image).await.unwrap();
    for (now, expected) in [(5, 5), (9, 9), (7, 9)] {
        uses::touch(&meta, Kind::Images, &["im-1".into(), "im-gone".into()], now).await.unwrap();
        assert_eq!(uses::list(&meta, Kind::Images).await.unwrap(), [("im-1".to_owned(), expected)]);
    }
}
