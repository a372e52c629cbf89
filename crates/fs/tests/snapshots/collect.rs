//! Removal of mountable forms, beside mounts.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use homeport_content::{Metadata, SnapshotId, Tree};
use homeport_fs::BackendChoice;

use crate::place::{Place, everywhere, isolated};

fn snapshot(place: &Place, name: &str) -> SnapshotId {
    let mut tree = Tree::new(Metadata::with_mode(0o755));
    tree.insert_leaf(name.as_bytes(), place.file(0o644, &[1; 1000])).unwrap();
    tree.insert_leaf(b"large", place.file(0o644, &vec![2; 100_000])).unwrap();
    place.put(&tree)
}

#[test]
fn what_is_not_wanted_goes_unless_it_is_mounted() {
    everywhere(|place| {
        let ids = ["a", "b", "c"].map(|name| snapshot(place, name));
        let [mounted, wanted, garbage] = ids;
        let places = ids.map(|id| place.fs.prepare(&id).unwrap());
        let mount = place.readable(&[mounted]);
        let keep = |image: &homeport_fs::CachedImage| {
            assert!(image.idle < Duration::from_secs(60), "{image:?}");
            image.id == wanted
        };
        let foreseen = place.fs.forget_images(&keep, true).unwrap();
        assert_eq!(foreseen.images, 1);
        let done = place.fs.forget_images(&keep, false).unwrap();
        assert_eq!((done.images, done.kept_bytes), (1, foreseen.kept_bytes));
        assert!(done.bytes >= 512);
        assert_eq!(places.map(|place| place.exists()), [true, true, false]);
        assert_eq!(fs::read(mount.target().join("large")).unwrap().len(), 100_000);
        mount.unmount().unwrap();

        // What went is made again, and what was in use goes when it isn't.
        assert_eq!(fs::read(place.readable(&[garbage]).target().join("c")).unwrap(), [1; 1000]);
        assert_eq!(place.fs.forget_images(&|_| false, false).unwrap().images, 3);
        for part in ["erofs", "linked/trees", "linked/scratch"] {
            assert_eq!(fs::read_dir(place.dir.path().join("fs").join(part)).unwrap().count(), 0);
        }
        for shard in fs::read_dir(place.dir.path().join("fs/linked/variants")).unwrap() {
            assert_eq!(fs::read_dir(shard.unwrap().path()).unwrap().count(), 0);
        }
    });
}

#[test]
fn an_image_in_use_can_go_and_come_back_in_a_storm_of_mounts() {
    for choice in [BackendChoice::Erofs, BackendChoice::Linked] {
        isolated(|| {
            let place = Place::new(choice, false);
            let ids = ["a", "b"].map(|name| snapshot(&place, name));
            let (stop, removed) = (AtomicBool::new(false), AtomicU64::new(0));
            let end = Instant::now() + Duration::from_secs(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let done = place.fs.forget_images(&|_| false, false).unwrap();
                        removed.fetch_add(done.images, Ordering::Relaxed);
                    }
                });
                let mut round = 0;
                while Instant::now() < end {
                    let mount = place.readable(&[ids[round % 2]]);
                    assert_eq!(fs::read(mount.target().join("large")).unwrap().len(), 100_000);
                    mount.unmount().unwrap();
                    round += 1;
                }
                stop.store(true, Ordering::Relaxed);
            });
            assert!(removed.into_inner() > 5);
        });
    }
}
