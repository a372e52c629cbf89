//! Layers: folded and made into bases, they hold what they held.

use std::collections::BTreeMap;

use super::{Place, changed, file, files};
use crate::volumes::entry::layers;

/// A number that looks random; the same in every run.
fn scattered(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29) >> 7
}

#[tokio::test(flavor = "multi_thread")]
async fn folding_changes_no_version_and_keeps_the_stack_short() {
    let place = Place::new().await;
    let id = place.volume("weights").await;
    let mut model: BTreeMap<String, String> = BTreeMap::new();
    let mut history = vec![model.clone()];
    for number in 1..=90_u64 {
        let (path, other) = (path(number), path(number + 7));
        let text = number.to_string();
        let removes = number % 3 == 0 && model.contains_key(&other);
        model.insert(path.clone(), text.clone());
        if removes && other != path {
            model.remove(&other);
        }
        let edit = move |head: &homeport_content::Layered| {
            Ok::<_, tonic::Status>(changed(head, |edit| {
                edit.put_leaf(path.as_bytes(), file(&text)).unwrap();
                if removes && other != path {
                    edit.remove(other.as_bytes(), false).unwrap();
                }
            }))
        };
        assert_eq!(place.volumes.publish_edit(&id, "upload", edit).await.unwrap(), number);
        history.push(model.clone());
    }
    settle(&place, &id).await;
    let head = place.volumes.head(&id).unwrap();
    assert!(head.stack.deltas.len() <= 5, "{} deltas", head.stack.deltas.len());
    let layered = place.volumes.layered(&id).await.unwrap();
    assert_eq!((head.record.files, head.record.bytes), layered.totals());

    let place = place.again().await;
    for entry in place.volumes.log(&id, 0).await.unwrap() {
        let number = entry.version.number;
        let version = place.volumes.version(&id, &number.to_string()).await.unwrap();
        let found = files(&layers(&place.store, &version.stack).unwrap());
        assert_eq!(found, history[number as usize], "version {number}");
    }
    assert_eq!(place.files(&id).await, model);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_change_becomes_a_base_that_is_equal() {
    let place = Place::new().await;
    let id = place.volume("weights").await;
    let many: Vec<(String, String)> =
        (0..3000).map(|n| (format!("d{}/f{n}", n % 13), n.to_string())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    place.upload(&id, &many).await;
    let before = place.volumes.layered(&id).await.unwrap().flatten().id();
    settle(&place, &id).await;
    let head = place.volumes.head(&id).unwrap();
    assert_eq!(head.stack.deltas, []);
    assert_eq!(head.stack.base, before, "the base is what the layers were");
    assert_eq!(head.number(), 1);
    let place = place.again().await;
    assert_eq!(place.volumes.layered(&id).await.unwrap().flatten().id(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_layers_are_folded_stays_on_top() {
    let place = Place::new().await;
    let id = place.volume("weights").await;
    let entry = place.volumes.entry(&id).unwrap();
    let mut expected = 0;
    for round in 0..20 {
        let (fold, write) = tokio::join!(place.volumes.tidy(&id, &entry), async {
            for number in 0..4 {
                place.upload(&id, &[(&format!("r{round}/{number}"), "x")]).await;
            }
        });
        fold.unwrap();
        let () = write;
        expected += 4;
        assert_eq!(place.files(&id).await.len(), expected);
    }
    settle(&place, &id).await;
    let place = place.again().await;
    assert_eq!(place.files(&id).await.len(), expected);
}

/// Waits until there is nothing left to fold.
async fn settle(place: &Place, id: &str) {
    let entry = place.volumes.entry(id).unwrap();
    while entry.tidying.load(std::sync::atomic::Ordering::Acquire) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    while place.volumes.tidy(id, &entry).await.unwrap() {}
}

fn path(number: u64) -> String {
    format!("d{}/f{}", scattered(number) % 3, scattered(number + 1) % 9)
}
