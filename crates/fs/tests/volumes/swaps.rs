//! Other versions in place of the one that a container sees, under programs that look all the time.

use homeport_fs::{BackendChoice, ShowError, TakeKind};

use crate::place::{Place, everywhere, place};
use crate::snapshots::isolated;

/// A thread that opens and looks at a file as fast as it can, and counts.
const READER: &str = "
looks, failures, seen, going = 0, [], set(), True
def look():
    global looks
    while going:
        try:
            with open(at + '/file') as file: seen.add(file.read())
            os.stat(at + '/dir/other')
        except OSError as problem:
            failures.append(repr(problem))
        looks += 1
reader = threading.Thread(target=look)
reader.start()
";

#[test]
fn nobody_sees_an_empty_moment_in_two_hundred_swaps() {
    for mapped in [false, true] {
        isolated(|| {
            let at = Place::new(BackendChoice::Auto, mapped);
            let versions = ["odd", "even"].map(|text| at.version(&[("file", text), ("dir/other", text)]));
            let mut running = at.run("one", &versions[0]);
            running.python(READER);
            let begun = std::time::Instant::now();
            for round in 0..200 {
                running.show(&versions[(round + 1) % 2]).unwrap();
            }
            println!("{:?} each", begun.elapsed() / 200);
            running.python("going = False; reader.join()");
            assert_eq!(running.python("failures"), serde_json::json!([]));
            assert_eq!(running.python("sorted(seen)"), serde_json::json!(["even", "odd"]));
            assert!(running.python("looks").as_u64().unwrap() > 100);
            // Exactly one mount is at the place, and none but the last upper directory is left.
            let count = running.python("sum(at in line for line in open('/proc/self/mountinfo'))");
            assert_eq!(count, 1);
            let (mut volume, nothing) = running.end();
            assert_eq!(nothing.delta, None);
            settle_to(1, || {
                volume.take(None, TakeKind::Ended).unwrap();
                generations(&at, "one")
            });
            volume.forget().unwrap();
        });
    }
}

#[test]
fn fifty_commits_beside_a_reader_lose_nothing_that_it_looks_for() {
    isolated(|| {
        let at = Place::new(BackendChoice::Erofs, true);
        let version = at.version(&[("file", "odd"), ("dir/other", "x")]);
        let mut running = at.run("one", &version);
        running.python(READER);
        let mut clean = 0;
        let mut version = version;
        for round in 0..50 {
            running.write(&format!("new-{round}"), &"n".repeat(2000));
            let taken = running.take(TakeKind::Background);
            clean += usize::from(taken.clean);
            version = at.with(&taken);
            assert_eq!(at.paths(&version).len(), 4 + round);
        }
        println!("{clean} of 50 commits changed the layer");
        running.python("going = False; reader.join()");
        assert_eq!(running.python("failures"), serde_json::json!([]));
        assert_eq!(running.list(), at.paths(&version));
        running.end().0.forget().unwrap();
    });
}

/// Waits until so many upper directories are left: mounts go a moment after their last user.
#[track_caller]
fn settle_to(expected: usize, mut count: impl FnMut() -> usize) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while count() != expected {
        assert!(std::time::Instant::now() < deadline, "{} are left", count());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn generations(at: &Place, key: &str) -> usize {
    let entries = std::fs::read_dir(at.dir.path().join("fs/volumes").join(key)).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count()
}

#[test]
fn open_files_mappings_and_working_directories_keep_their_version() {
    everywhere(|at| {
        let old = at.version(&[("file", "old file"), ("dir/deep", "old deep")]);
        let new = at.version(&[("file", "new file"), ("dir/deep", "new deep")]);
        let mut running = at.run("one", &old);
        running.python(
            "handle = open(at + '/file'); mapped = mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ)",
        );
        running.python("os.chdir(at + '/dir'); directory = os.open(at + '/dir', os.O_RDONLY)");
        running.write("uncommitted", "by me");
        assert!(matches!(running.show(&new), Err(ShowError::Changed)));
        let taken = running.take(TakeKind::Asked);
        assert!(!taken.clean);
        running.show(&new).unwrap();
        assert_eq!(running.read("file"), "new file");
        assert_eq!(running.python("handle.read()"), "old file");
        assert_eq!(running.python("mapped[:].decode()"), "old file");
        assert_eq!(running.python("open('deep').read()"), "old deep");
        assert_eq!(
            running.python("open('deep', opener=lambda p, f: os.open(p, f, dir_fd=directory)).read()"),
            "old deep"
        );
        assert_eq!(running.python("open(at + '/dir/deep').read()"), "new deep");
        assert_eq!(running.python("open('../uncommitted').read()"), "by me");
        // The way out of the old version is closed, and nothing can be written there.
        assert_eq!(running.python("os.path.exists('../../one')"), false);
        let refused = running.container.try_run("open('deep', 'w')").unwrap_err();
        assert!(refused.contains("Read-only"), "{refused}");
        running.python("os.chdir(at + '/dir')");
        assert_eq!(running.python("open('deep').read()"), "new deep");
        running.python("os.chdir('/')");
        assert_eq!(generations(at, "one"), 2);
        running.python("mapped.close(); handle.close(); os.close(directory)");
        running.write("later", "x");
        let clean = running.take(TakeKind::Background).clean;
        // That of which contents are still read, where there is one, and the one that takes changes.
        settle_to(1 + usize::from(clean), || {
            running.take(TakeKind::Background);
            generations(at, "one")
        });
        running.end().0.forget().unwrap();
    });
}

#[test]
fn a_file_that_is_open_for_writing_makes_it_fail_and_is_named() {
    everywhere(|at| {
        let (old, new) = (at.version(&[("dir/file", "old")]), at.version(&[("dir/file", "new")]));
        let places = [place("/mnt/first", "", false), place("/mnt/second", "dir", false)];
        let mut running = at.run_at("one", &old, &places);
        let second = places[1].path.to_str().unwrap().to_owned();
        let pid = running.container.pid();
        let cases = [
            "writer = open(second + '/file', 'a')",
            "mapped.close(); writer = open(second + '/file', 'r+')",
            "writer = open(second + '/file', 'r+'); mapped = mmap.mmap(writer.fileno(), 0); writer.close()",
        ];
        running.python(&format!("second = {second:?}; mapped = mmap.mmap(-1, 1)"));
        for case in cases {
            running.python(case);
            // Opening alone changes nothing, or else is taken first.
            let _ = running.take(TakeKind::Background);
            match running.show(&new) {
                Err(ShowError::Busy { path, pid: found, process }) => {
                    assert_eq!(path.to_str(), Some(format!("{second}/file").as_str()), "{case}");
                    assert_eq!((found, process.as_str()), (pid, "python3"), "{case}");
                }
                other => panic!("{case}: {other:?}"),
            }
            // It goes on as before.
            running.write("dir/still", "written");
            running.python("writer.close()");
        }
        running.python("mapped.close()");
        running.take(TakeKind::Asked);
        running.show(&new).unwrap();
        assert_eq!(running.read("dir/file"), "new");
        running.write("dir/still", "again");
        running.end().0.forget().unwrap();
    });
}

#[test]
fn when_asked_to_be_strict_readers_stand_against_it_too() {
    everywhere(|at| {
        let (old, new) = (at.version(&[("file", "old")]), at.version(&[("file", "new")]));
        let mut running = at.run("one", &old);
        let strictly = |running: &mut crate::place::Running| {
            let volume = &mut running.volume;
            running.container.inside(|inside| volume.show(inside, &new, true))
        };
        for open in [
            "reader = open(at + '/file')",
            "f = open(at + '/file'); reader = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); f.close()",
        ] {
            running.python(open);
            match strictly(&mut running) {
                Err(ShowError::Busy { path, .. }) => assert!(path.ends_with("file"), "{path:?}"),
                other => panic!("{open}: {other:?}"),
            }
            running.write("file-2", "still writable");
            running.python("os.remove(at + '/file-2')");
            running.python("reader.close()");
            running.take(TakeKind::Asked);
        }
        // A working directory has no content.
        running.python("os.chdir(at)");
        strictly(&mut running).unwrap();
        running.python("os.chdir('/')");
        assert_eq!(running.read("file"), "new");
        running.end().0.forget().unwrap();
    });
}
