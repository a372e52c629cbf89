//! Where a container sees a Volume.

use homeport_fs::{BackendChoice, TakeKind};

use crate::place::{Place, everywhere, place};
use crate::snapshots::isolated;

#[test]
fn two_places_of_one_volume_show_the_same_files() {
    everywhere(|at| {
        let version = at.version(&[("file", "old"), ("dir/deep", "deep")]);
        let places = [place("/mnt/a", "", false), place("/else/where", "", true)];
        let mut running = at.run_at("one", &version, &places);
        running.write("file", "new");
        assert_eq!(running.container.read("/else/where/file"), "new");
        let refused = running.container.try_run("open('/else/where/file', 'w')").unwrap_err();
        assert!(refused.contains("Read-only"), "{refused}");
        assert_eq!(
            running.python("os.stat('/mnt/a').st_dev == os.stat('/else/where/dir/deep').st_dev"),
            true
        );
        let taken = running.take(TakeKind::Asked);
        assert_eq!(at.text(&at.with(&taken), "file"), "new");
        let other = at.version(&[("file", "other")]);
        running.show(&other).unwrap();
        assert_eq!(running.container.list("/mnt/a"), ["file"]);
        assert_eq!(running.container.list("/else/where"), ["file"]);
        let refused = running.container.try_run("open('/else/where/file', 'w')").unwrap_err();
        assert!(refused.contains("Read-only"), "{refused}");
        running.write("file", "last");
        assert_eq!(running.container.read("/else/where/file"), "last");
        running.end().0.forget().unwrap();
    });
}

#[test]
fn a_sub_path_shows_one_directory_and_is_made_where_it_is_missing() {
    everywhere(|at| {
        let version = at.version(&[("models/bert/weights", "w"), ("file", "f")]);
        let places = [place("/bert", "models/bert", false), place("/new", "a/b/c", false)];
        let mut running = at.run_at("one", &version, &places);
        assert_eq!(running.list(), ["weights"]);
        assert_eq!(
            running.python("(os.stat('/new').st_uid, os.stat('/new').st_mode & 0o777)"),
            serde_json::json!([0, 0o755])
        );
        running.write("more", "m");
        running.container.write("/new/made", "n");
        let taken = running.take(TakeKind::Asked);
        let next = at.with(&taken);
        let expected = [
            "a",
            "a/b",
            "a/b/c",
            "a/b/c/made",
            "file",
            "models",
            "models/bert",
            "models/bert/more",
            "models/bert/weights",
        ];
        assert_eq!(at.paths(&next), expected);
        // The directory stays what is seen, also of a version that lacks it.
        running.show(&version).unwrap();
        assert_eq!(running.container.list("/new"), Vec::<String>::new());
        let (volume, taken) = running.end();
        assert_eq!(at.paths(&at.with(&taken)).iter().filter(|path| path.starts_with('a')).count(), 3);
        volume.forget().unwrap();
    });
}

#[test]
fn sub_paths_that_cannot_be_are_refused_by_name() {
    isolated(|| {
        let at = Place::new(BackendChoice::Auto, true);
        let version = at.version(&[("file", "f"), ("dir/x", "x")]);
        let cases = [
            ("missing/deep", true, "does not exist"),
            ("file", false, "not a directory"),
            ("file/below", false, "not a directory"),
            ("dir/../..", false, ".."),
        ];
        for (sub_path, read_only, reason) in cases {
            let places = [place("/mnt", sub_path, read_only), place("/other", "", false)];
            let refused = at.try_open("one", &version, &places, &[], 0).unwrap_err().to_string();
            assert!(refused.contains(sub_path) && refused.contains(reason), "{refused}");
        }
        // Links in the Volume do not lead out of it.
        let mut running = at.run("two", &version);
        running
            .python("os.symlink('/etc', at + '/link'); os.mkdir(at + '/etc'); open(at + '/etc/mine', 'w')");
        let (volume, taken) = running.end();
        volume.forget().unwrap();
        let mut running = at.run_at("three", &at.with(&taken), &[place("/mnt", "link", true)]);
        assert_eq!(running.list(), ["mine"]);
        running.end().0.forget().unwrap();
        assert_eq!(std::fs::read_dir(at.dir.path().join("fs/volumes")).unwrap().count(), 0);
    });
}

#[test]
fn a_volume_that_is_only_read_has_no_layer_and_is_reloaded() {
    everywhere(|at| {
        let (old, new) = (at.version(&[("dir/file", "old")]), at.version(&[("dir/file", "new")]));
        let mut running = at.run_at("one", &old, &[place("/a", "", true), place("/b", "dir", true)]);
        assert_eq!(std::fs::read_dir(at.dir.path().join("fs/volumes")).unwrap().count(), 0);
        assert_eq!(running.read("dir/file"), "old");
        let refused = running.container.try_run("open('/a/dir/file', 'a')").unwrap_err();
        assert!(refused.contains("Read-only"), "{refused}");
        running.python("reader = open('/b/file')");
        let taken = running.take(TakeKind::Asked);
        assert_eq!((taken.delta, taken.clean), (None, true));
        running.show(&new).unwrap();
        assert_eq!(
            (running.read("dir/file"), running.container.read("/b/file")),
            ("new".into(), "new".into())
        );
        assert_eq!(running.python("reader.read()"), "old");
        // A version without the directory is refused, and the old one stays.
        let without = at.version(&[("file", "x")]);
        let refused = running.show(&without).unwrap_err().to_string();
        assert!(refused.contains("`dir`"), "{refused}");
        assert_eq!(running.container.read("/b/file"), "new");
        let (volume, nothing) = running.end();
        assert_eq!(nothing.delta, None);
        volume.forget().unwrap();
    });
}

#[test]
fn other_mounts_inside_a_volume_stay_when_it_is_swapped() {
    for mapped in [false, true] {
        isolated(|| {
            let at = Place::new(BackendChoice::Erofs, mapped);
            let (old, new) =
                (at.version(&[("f", "old"), ("in/x", "")]), at.version(&[("f", "new"), ("in/y", "")]));
            let inner = at.version(&[("inner", "inner")]);
            let volume = at.open("one", &old, &[place("/v", "", false)]);
            let second = at.open("two", &inner, &[place("/v/in", "", false)]);
            let mut binds = volume.binds();
            binds.extend(second.binds());
            let mut running = at.start_with(volume, &binds, "/v");
            running.write("in/written", "w");
            running.write("mine", "m");
            let taken = running.take(TakeKind::Asked);
            assert!(!taken.clean);
            assert_eq!(at.paths(&at.with(&taken)), ["f", "in", "in/x", "mine"]);
            running.show(&new).unwrap();
            assert_eq!(running.list(), ["f", "in", "in/inner", "in/written"]);
            assert_eq!(running.read("f"), "new");
            let without = at.version(&[("f", "without")]);
            let refused = running.show(&without).unwrap_err().to_string();
            assert!(refused.contains("/v/in"), "{refused}");
            assert_eq!(running.list(), ["f", "in", "in/inner", "in/written"]);
            running.write("f", "still writable");
            running.end().0.forget().unwrap();
            drop(second);
        });
    }
}

#[test]
fn a_place_is_found_after_a_directory_above_it_was_renamed() {
    everywhere(|at| {
        let version = at.version(&[("file", "old"), ("dir/x", "x")]);
        let mut running =
            at.run_at("one", &version, &[place("/top/vol", "", false), place("/top/sub", "dir", false)]);
        running.python("os.rename('/top', '/elsewhere')");
        running.container.write("/elsewhere/vol/file", "new");
        let taken = running.take(TakeKind::Asked);
        assert_eq!(at.text(&at.with(&taken), "file"), "new");
        let other = at.version(&[("file", "other"), ("dir/y", "y")]);
        running.show(&other).unwrap();
        assert_eq!(running.container.read("/elsewhere/vol/file"), "other");
        assert_eq!(running.container.list("/elsewhere/sub"), ["y"]);
        running.end().0.forget().unwrap();
    });
}
