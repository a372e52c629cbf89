//! What a process that ended without a word leaves to the next one.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use homeport_content::Stack;
use homeport_fs::{BackendChoice, LeftVolume, SnapshotFs, TakeKind, Taken, VolumeMount};
use homeport_store::Store;

use crate::place::{Place, everywhere};
use crate::snapshots::isolated;

/// The same place after a restart.
fn reopened(place: Place) -> Place {
    let Place { store, fs, map, dir } = place;
    let choice = match fs.backend() {
        homeport_fs::Backend::Erofs => BackendChoice::Erofs,
        homeport_fs::Backend::Linked => BackendChoice::Linked,
    };
    assert_eq!(Arc::strong_count(&fs), 1);
    drop((fs, store));
    let store = Arc::new(Store::open(&dir.path().join("store")).unwrap());
    let fs = Arc::new(SnapshotFs::open(Arc::clone(&store), &dir.path().join("fs"), choice).unwrap());
    Place { store, fs, map, dir }
}

fn again(place: &Place) -> Place {
    Place {
        store: Arc::clone(&place.store),
        fs: Arc::clone(&place.fs),
        map: place.map.as_ref().map(|_| crate::snapshots::user_namespace()),
        dir: tempfile::tempdir().unwrap(),
    }
}

fn only(left: Vec<LeftVolume>) -> LeftVolume {
    let mut left = left;
    assert_eq!(left.len(), 1);
    left.remove(0)
}

#[test]
fn what_was_written_and_not_taken_is_taken_by_the_next_process() {
    for choice in [BackendChoice::Erofs, BackendChoice::Linked] {
        for mapped in [false, true] {
            isolated(|| {
                let at = Place::new(choice, mapped);
                let version = at.version(&[("file", "old"), ("dir/x", "x")]);
                let mut running = at.run("one", &version);
                running.volume.note("first").unwrap();
                running.write("taken", &"t".repeat(3000));
                let taken = running.take(TakeKind::Background);
                running.volume.note("second").unwrap();
                running.python("os.chmod(at + '/file', 0o640); os.rename(at + '/dir', at + '/moved')");
                running.write("left", &"l".repeat(3000));
                let crate::place::Running { volume, container, .. } = running;
                container.end();
                // Dropping it is what the end of a process does: nothing is taken, nothing is removed.
                drop(volume);
                let at = reopened(at);
                let mut left = only(at.fs.left_volumes().unwrap());
                assert_eq!((left.key.as_str(), left.note.as_str()), ("one", "second"));
                let last = left.take().unwrap();
                let layers = |stack: &Stack| at.layers(stack).flatten().id();
                assert_eq!(layers(&last.seen), layers(&at.with(&taken)));
                let next = at.with(&last);
                assert_eq!(at.paths(&next), ["file", "left", "moved", "moved/x", "taken"]);
                assert_eq!(at.text(&next, "left"), "l".repeat(3000));
                let file = at.layers(&next);
                assert_eq!(file.get(b"file").unwrap().metadata().mode, 0o640);
                assert_eq!(file.get(b"left").unwrap().metadata().uid, 0);
                // As long as nobody has noted it, it is there for the next one.
                assert_eq!(left.take().unwrap(), last);
                drop(left);
                let at = reopened(at);
                let mut left = only(at.fs.left_volumes().unwrap());
                assert_eq!(left.take().unwrap().delta, last.delta);
                left.forget().unwrap();
                assert!(at.fs.left_volumes().unwrap().is_empty());
            });
        }
    }
}

#[test]
fn what_was_taken_and_not_noted_is_told_once_more() {
    everywhere(|place| {
        let at = again(place);
        let version = at.version(&[("file", "old")]);
        let mut running = at.run("one", &version);
        running.volume.note("nothing yet").unwrap();
        running.write("one", &"1".repeat(3000));
        let first = running.take(TakeKind::Background);
        running.write("two", &"2".repeat(3000));
        let second = running.take(TakeKind::Background);
        assert_ne!(first.delta, second.delta);
        running.write("three", "3");
        let crate::place::Running { volume, container, .. } = running;
        container.end();
        drop(volume);
        let mut left = only(at.fs.left_volumes().unwrap());
        let taken = left.take().unwrap();
        assert_eq!(taken.seen, version);
        assert_eq!(at.paths(&at.with(&taken)), ["file", "one", "three", "two"]);
        left.forget().unwrap();
    });
}

#[test]
fn layers_are_not_found_while_another_process_has_the_directory() {
    isolated(|| {
        let at = Place::new(BackendChoice::Auto, false);
        let version = at.version(&[("file", "old")]);
        let volume = at.open("one", &version, &[crate::place::place("/v", "", false)]);
        let second = SnapshotFs::open(Arc::clone(&at.store), &at.dir.path().join("fs"), BackendChoice::Auto);
        assert!(Arc::new(second.unwrap()).left_volumes().unwrap().is_empty());
        volume.forget().unwrap();
    });
}

/// What the process that will be killed says: what it has noted so far.
fn noted(volume: &mut VolumeMount, takes: &mut Vec<(Stack, String)>, taken: &Taken) {
    let Some(delta) = taken.delta else { return };
    takes.push((taken.seen.clone(), delta.to_hex()));
    let note: Vec<String> = takes.iter().map(|(_, delta)| delta.clone()).collect();
    volume.note(&note.join(" ")).unwrap();
}

/// Run in a process of its own by the test below, which kills it.
#[test]
#[ignore = "is part of another test"]
fn victim() {
    let Ok(dir) = std::env::var("HOMEPORT_TEST_VICTIM") else { return };
    isolated(|| {
        let dir = PathBuf::from(dir);
        let store = Arc::new(Store::open(&dir.join("store")).unwrap());
        let fs =
            Arc::new(SnapshotFs::open(Arc::clone(&store), &dir.join("fs"), BackendChoice::Auto).unwrap());
        let at = Place { store, fs, map: None, dir: tempfile::tempdir_in(&dir).unwrap() };
        let version = at.version(&[("file", "old")]);
        let mut running = at.run("one", &version);
        running.volume.note("").unwrap();
        let mut takes = Vec::new();
        for round in 0.. {
            // Sometimes somebody uses the mount, and then what is taken is copied.
            running.python(if round % 5 == 3 { "f = open(at + '/file')" } else { "f = None" });
            let code = format!(
                "path = at + '/file-{round}'; open(path, 'w').write('{round} ' * {}); \
                 os.chmod(path, 0o600 + {}); os.utime(path, (1, {round}))",
                300 + round * 7,
                round % 8
            );
            running.python(&code);
            println!("written {round}");
            let taken = running.take(TakeKind::Background);
            noted(&mut running.volume, &mut takes, &taken);
        }
    });
}

#[test]
fn a_process_that_is_killed_at_any_time_leaves_everything_that_was_written() {
    isolated(|| {
        for attempt in 0..25_u64 {
            let dir = tempfile::tempdir().unwrap();
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
            let written =
                kill_after(dir.path(), 5 + attempt % 6, Duration::from_micros(attempt * 1700 % 23_000));
            let store = Arc::new(Store::open(&dir.path().join("store")).unwrap());
            let fs =
                SnapshotFs::open(Arc::clone(&store), &dir.path().join("fs"), BackendChoice::Auto).unwrap();
            let at = Place { store, fs: Arc::new(fs), map: None, dir: tempfile::tempdir().unwrap() };
            let mut left = only(at.fs.left_volumes().unwrap());
            let noted: Vec<_> =
                left.note.split(' ').filter(|text| !text.is_empty()).map(str::to_owned).collect();
            let taken = left.take().unwrap();
            println!("{attempt}: {} of {written} were noted, seen {}", noted.len(), taken.seen.deltas.len());
            check(&at, &taken, &noted, written);
            left.forget().unwrap();
        }
    });
}

/// Starts a victim, and kills it some time after it has written so many files. Returns how many it had said then.
fn kill_after(dir: &Path, files: u64, pause: Duration) -> usize {
    let mut victim = Command::new("/proc/self/exe")
        .args(["--exact", "recovery::victim", "--ignored", "--nocapture"])
        .env("HOMEPORT_TEST_VICTIM", dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines().map(Result::unwrap);
    let wanted = format!("written {files}");
    assert!(lines.any(|line| line == wanted));
    std::thread::sleep(pause);
    victim.kill().unwrap();
    victim.wait().unwrap();
    let more = lines.filter(|line| line.starts_with("written ")).count();
    // Its own child saw the end of its input, or was stopped and has no parent.
    end_stopped_children(dir);
    files as usize + 1 + more
}

/// Ends the container of a killed process: it stands still, as a frozen one does.
fn end_stopped_children(dir: &Path) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        let users: Vec<i32> = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| {
                let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
                *pid != std::process::id() as i32
                    && mounts.contains("/mnt/one")
                    && mounts.contains(dir.to_str().unwrap())
            })
            .collect();
        if users.is_empty() {
            return;
        }
        for pid in users {
            // SAFETY: it has mounts of this test, so it was started by it.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Every file that was written is there, as it was written.
fn check(at: &Place, taken: &Taken, noted: &[String], written: usize) {
    let version = at.with(taken);
    let paths: BTreeMap<String, ()> = at.paths(&version).into_iter().map(|path| (path, ())).collect();
    let layers = at.layers(&version);
    for round in 0..written {
        let path = format!("file-{round}");
        assert!(paths.contains_key(&path), "{path} is missing; noted {}", noted.len());
        let text = at.text(&version, &path);
        assert_eq!(text, format!("{round} ").repeat(300 + round * 7), "{path}");
        let metadata = layers.get(path.as_bytes()).unwrap().metadata();
        assert_eq!(metadata.mode, 0o600 + round as u32 % 8, "{path}");
        assert_eq!((metadata.mtime.seconds, metadata.mtime.nanos), (round as i64, 0), "{path}");
    }
    for delta in noted {
        assert!(at.store.contains_delta(&delta.parse().unwrap()), "{delta}");
    }
}
