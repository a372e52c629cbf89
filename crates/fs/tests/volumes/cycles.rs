//! Writing, taking and showing, again and again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use homeport_fs::{Backend, ShowError, TakeKind};

use crate::place::{Place, everywhere, place};

const LARGE: usize = 100_000;

fn large(letter: char) -> String {
    letter.to_string().repeat(LARGE)
}

/// `kept`, `dir/{one,two}` and a large file.
fn begin(place: &Place) -> homeport_content::Stack {
    place.version(&[("kept", "kept"), ("dir/one", "1"), ("dir/two", "2"), ("large", &large('l'))])
}

#[test]
fn what_is_written_is_taken_and_seen_by_the_next_container() {
    everywhere(|place| {
        let version = begin(place);
        let mut running = place.run("one", &version);
        assert_eq!(running.list(), ["dir", "dir/one", "dir/two", "kept", "large"]);
        running.write("new", "new");
        running.write("dir/one", &large('o'));
        running.python("os.remove(at + '/dir/two')");
        let taken = running.take(TakeKind::Asked);
        assert_eq!(taken.seen, version);
        let next = place.with(&taken);
        assert_eq!(place.paths(&next), ["dir", "dir/one", "kept", "large", "new"]);
        assert_eq!(place.text(&next, "dir/one"), large('o'));
        // What was taken is what the container sees.
        assert_eq!(running.list(), place.paths(&next));
        assert_eq!(taken.clean, place.fs.backend() == Backend::Erofs);

        let mut other = place.run("two", &next);
        assert_eq!(other.read("dir/one"), large('o'));
        assert_eq!(other.list(), place.paths(&next));
        let (volume, nothing) = other.end();
        assert_eq!((nothing.delta, nothing.seen), (None, next.clone()));
        volume.forget().unwrap();

        running.write("dir/one", "small again");
        let taken = running.take(TakeKind::Asked);
        assert_eq!(place.layers(&taken.seen).flatten().id(), place.layers(&next).flatten().id());
        assert_eq!(place.text(&place.with(&taken), "dir/one"), "small again");
        let (volume, nothing) = running.end();
        assert_eq!(nothing.delta, None);
        volume.forget().unwrap();
    });
}

#[test]
fn a_version_of_others_is_shown_in_place() {
    everywhere(|place| {
        let version = begin(place);
        let other = place.version(&[("kept", "other"), ("another", &large('a'))]);
        let mut running = place.run("one", &version);
        running.write("new", "new");
        assert!(matches!(running.show(&other), Err(ShowError::Changed)));
        assert_eq!(running.read("new"), "new");
        let taken = running.take(TakeKind::Asked);
        running.show(&other).unwrap();
        assert_eq!(running.list(), ["another", "kept"]);
        assert_eq!((running.read("kept"), running.read("another")), ("other".into(), large('a')));
        running.write("kept", "mine");
        let (volume, last) = running.end();
        assert_eq!(last.seen, other);
        assert_eq!(place.text(&place.with(&last), "kept"), "mine");
        assert_ne!(taken.delta, None);
        volume.forget().unwrap();
    });
}

#[test]
fn thirty_commits_of_one_container_make_a_short_stack() {
    everywhere(|place| {
        let version = begin(place);
        let mut running = place.run("one", &version);
        let mut used = vec![false; 10];
        used.extend([true; 10]);
        used.extend([false; 10]);
        for (round, used) in used.into_iter().enumerate() {
            if used {
                running.python("f = open(at + '/kept')");
            } else {
                running.python("f = None");
            }
            running.write("round", &round.to_string());
            running.write(&format!("file-{round}"), &large('x'));
            let taken = running.take(TakeKind::Background);
            let next = place.with(&taken);
            assert_eq!(place.text(&next, "round"), round.to_string());
            assert_eq!(place.paths(&next).len(), 5 + 2 + round, "{:?}", place.paths(&next));
            assert_eq!(running.list(), place.paths(&next));
            assert!(next.deltas.len() <= 20, "{}", next.deltas.len());
        }
        running.end().0.forget().unwrap();
    });
}

#[test]
fn a_container_that_ends_at_once_loses_nothing() {
    everywhere(|place| {
        let version = begin(place);
        let mut running = place.run("one", &version);
        running.write("last", &large('z'));
        running.python("os.rename(at + '/dir', at + '/moved')");
        let (mut volume, taken) = running.end();
        assert!(taken.clean);
        let next = place.with(&taken);
        assert_eq!(place.paths(&next), ["kept", "large", "last", "moved", "moved/one", "moved/two"]);
        assert_eq!(place.text(&next, "last"), large('z'));
        // There is nothing more to take.
        let again = volume.take(None, TakeKind::Ended).unwrap();
        assert_eq!((again.delta, again.seen), (None, next));
        volume.forget().unwrap();
        let left = std::fs::read_dir(place.dir.path().join("fs/volumes")).unwrap();
        assert_eq!(left.count(), 0);
    });
}

#[test]
fn names_of_layers_are_used_once_and_need_a_place() {
    crate::snapshots::isolated(|| {
        let at = Place::new(homeport_fs::BackendChoice::Auto, false);
        let version = begin(&at);
        let path = "/mnt/vol";
        let open = |key: &str| at.try_open(key, &version, &[place(path, "", false)], &[], 0);
        let first = open("one").unwrap();
        for key in ["one", "", "../one", "a/b", ".hidden"] {
            assert!(open(key).unwrap_err().to_string().contains(&format!("`{key}`")));
        }
        assert!(at.try_open("two", &version, &[], &[], 0).is_err());
        first.forget().unwrap();
        open("one").unwrap().forget().unwrap();
    });
}

#[test]
fn a_container_that_changes_nothing_is_not_stopped_again_and_again() {
    everywhere(|place| {
        let version = begin(place);
        let mut running = place.run("one", &version);
        let stops = |running: &crate::place::Running| running.container.stops.load(Ordering::Relaxed);
        assert_eq!(running.take(TakeKind::Background).delta, None);
        assert_eq!(stops(&running), 0);
        running.python("reader = open(at + '/kept')");
        running.write("dir/one", "changed");
        assert!(running.take(TakeKind::Background).delta.is_some());
        std::thread::sleep(Duration::from_millis(2100));
        // Now it can be told that nothing changes.
        assert_eq!(running.take(TakeKind::Background).delta, None);
        let before = stops(&running);
        for _ in 0..5 {
            assert_eq!(running.take(TakeKind::Background).delta, None);
        }
        assert_eq!(stops(&running), before);
        for change in [
            "open(at + '/dir/one', 'r+').write('C')",
            "os.chmod(at + '/dir', 0o711)",
            "os.remove(at + '/kept')",
        ] {
            running.python(change);
            let taken = running.take(TakeKind::Background);
            assert!(taken.delta.is_some(), "{change}");
            std::thread::sleep(Duration::from_millis(2100));
            running.take(TakeKind::Background);
        }
        // Who has a mapping can write without a trace in the times of the file.
        running.python("w = open(at + '/dir/one', 'r+'); mapped = mmap.mmap(w.fileno(), 0); w.close(); mapped[0:1] = b'D'");
        assert!(running.take(TakeKind::Background).delta.is_some());
        std::thread::sleep(Duration::from_millis(2100));
        running.take(TakeKind::Background);
        running.python("mapped[0:1] = b'E'");
        let taken = running.take(TakeKind::Background);
        assert_eq!(place.text(&place.with(&taken), "dir/one"), "Ehanged");
        running.end().0.forget().unwrap();
    });
}
