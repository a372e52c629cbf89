//! Several deltas over each other, as the kernel shows them and as they are read.

use homeport_content::Stack;
use homeport_fs::{Backend, TakeKind};

use crate::place::{Place, Running, everywhere};

/// Takes what is changed by some Python as one more layer, in a container of its own.
fn changed(at: &Place, version: &Stack, code: &str) -> Stack {
    let mut running = at.run("change", version);
    running.python("os.chdir(at)");
    running.python(code);
    running.python("os.chdir('/')");
    let (volume, taken) = running.end();
    volume.forget().unwrap();
    assert_eq!(taken.seen, *version);
    at.with(&taken)
}

/// What a container sees is what the layers say together.
#[track_caller]
fn assert_shown(at: &Place, version: &Stack) -> Vec<String> {
    let mut running = at.run("look", version);
    let shown = running.list();
    assert_eq!(shown, at.paths(version));
    running.end().0.forget().unwrap();
    shown
}

#[test]
fn whiteouts_of_a_delta_hide_what_is_below_and_let_it_come_back() {
    everywhere(|at| {
        let base = at.version(&[("a", "a"), ("d/x", "x"), ("d/y", "y"), ("d/e/z", "z"), ("was-file", "f")]);
        let one = changed(
            at,
            &base,
            "os.remove('a'); os.remove('d/x'); os.remove('was-file'); os.mkdir('was-file')",
        );
        assert_eq!(assert_shown(at, &one), ["d", "d/e", "d/e/z", "d/y", "was-file"]);
        let two =
            changed(at, &one, "import shutil; shutil.rmtree('d'); open('was-file/in', 'w').write('in')");
        assert_eq!(assert_shown(at, &two), ["was-file", "was-file/in"]);
        // A directory made anew shows nothing of the old one.
        let three =
            changed(at, &two, "os.mkdir('d'); open('d/new', 'w').write('n'); open('a', 'w').write('again')");
        assert_eq!(assert_shown(at, &three), ["a", "d", "d/new", "was-file", "was-file/in"]);
        assert_eq!(at.text(&three, "a"), "again");
        // A file in place of a directory.
        let four =
            changed(at, &three, "import shutil; shutil.rmtree('was-file'); open('was-file', 'w').write('f')");
        assert_eq!(assert_shown(at, &four), ["a", "d", "d/new", "was-file"]);
        assert_eq!(four.deltas.len(), 4);
    });
}

#[test]
fn twelve_deltas_are_read_as_one() {
    everywhere(|at| {
        let mut version = at.version(&[("base", "base"), ("dir/0", "0")]);
        for layer in 1..=12 {
            let code = format!(
                "open('dir/{layer}', 'w').write('{layer}' * 1000); open('base', 'w').write('{layer}'); \
                 os.remove('dir/{}'); os.chmod('dir', 0o700 + {layer})",
                layer - 1
            );
            version = changed(at, &version, &code);
        }
        assert_eq!(version.deltas.len(), 12);
        assert_eq!(assert_shown(at, &version), ["base", "dir", "dir/12"]);
        let mut running = at.run("look", &version);
        assert_eq!(running.read("base"), "12");
        assert_eq!(running.read("dir/12"), "12".repeat(1000));
        assert_eq!(running.python("oct(os.stat(at + '/dir').st_mode & 0o777)"), "0o714");
        running.end().0.forget().unwrap();
    });
}

#[test]
fn a_delta_that_occurs_twice_is_mounted_once() {
    everywhere(|at| {
        let base = at.version(&[("file", "base")]);
        let time = "os.utime('file', (1, 1)); os.utime('.', (1, 1))";
        let one = changed(at, &base, &format!("open('file', 'w').write('one'); {time}"));
        let two = changed(at, &one, &format!("open('file', 'w').write('two'); {time}"));
        let three = changed(at, &two, &format!("open('file', 'w').write('one'); {time}"));
        assert_eq!(three.deltas[0], three.deltas[2]);
        let mut running = at.run("look", &three);
        assert_eq!(running.read("file"), "one");
        running.write("more", "m");
        let taken = running.take(TakeKind::Asked);
        assert_eq!(at.paths(&at.with(&taken)), ["file", "more"]);
        running.end().0.forget().unwrap();
    });
}

#[test]
fn committed_directories_are_renamed_with_all_that_is_in_them() {
    everywhere(|at| {
        let base = at.version(&[("d/one", "1"), ("d/e/two", "2"), ("other/three", "3")]);
        let one = changed(at, &base, "open('d/new', 'w').write('n' * 5000)");
        let two = changed(
            at,
            &one,
            "os.rename('d', 'other/moved'); os.rename('other', 'top'); os.remove('top/moved/one'); \
             os.rename('top/moved/e', 'e')",
        );
        let expected = ["e", "e/two", "top", "top/moved", "top/moved/new", "top/three"];
        assert_eq!(assert_shown(at, &two), expected);
        assert_eq!(at.text(&two, "top/moved/new"), "n".repeat(5000));
        // Within one container, over what it has taken itself.
        let mut running = at.run("again", &two);
        for (from, to) in [("top", "a"), ("a", "b"), ("b/moved", "c")] {
            running.python(&format!("os.rename(at + '/{from}', at + '/{to}')"));
            let taken = running.take(TakeKind::Background);
            assert_eq!(running.list(), at.paths(&at.with(&taken)));
        }
        assert_eq!(running.list(), ["b", "b/three", "c", "c/new", "e", "e/two"]);
        running.end().0.forget().unwrap();
    });
}

#[test]
fn names_longer_than_the_usual_limit_of_the_kernel_are_renamed() {
    everywhere(|at| {
        homeport_fs::raise_redirect_limit().unwrap();
        let deep = vec!["d".repeat(100); 5].join("/");
        let file = format!("{deep}/file");
        let base = at.version(&[(&file, "f")]);
        let code = format!("os.rename('{deep}', 'short'); os.link('short/file', 'link')");
        let one = changed(at, &base, &code);
        let paths = assert_shown(at, &one);
        assert!(paths.contains(&"short/file".to_owned()) && paths.contains(&"link".to_owned()));
        assert_eq!(at.text(&one, "link"), "f");
    });
}

/// Whether two names are one file, for the container and for the layers.
fn linked(at: &Place, running: &mut Running, version: &Stack, names: [&str; 2]) -> (bool, bool) {
    let code = format!("os.path.samefile(at + '/{}', at + '/{}')", names[0], names[1]);
    let layers = at.layers(version);
    let leaf = |name: &str| match layers.get(name.as_bytes()) {
        Some(homeport_content::Seen::Leaf { layer, id, .. }) => (layer, id),
        other => panic!("{other:?}"),
    };
    (running.python(&code) == true, leaf(names[0]) == leaf(names[1]))
}

#[test]
fn hard_links_stay_links_when_one_name_is_changed() {
    everywhere(|at| {
        let base = at.version(&[("one", &"1".repeat(2000)), ("other", "o")]);
        let first = changed(at, &base, "os.link('one', 'two'); os.mkdir('d'); os.link('one', 'd/three')");
        let mut running = at.run("look", &first);
        assert_eq!(linked(at, &mut running, &first, ["one", "d/three"]), (true, true));
        if at.fs.backend() == Backend::Linked {
            // There a change is a change of one name.
            return running.end().0.forget().unwrap();
        }
        assert_eq!(running.python("os.stat(at + '/one').st_nlink"), 3);
        running.python("with open(at + '/two', 'a') as f: f.write('more')");
        assert_eq!(running.read("d/three"), format!("{}more", "1".repeat(2000)));
        let taken = running.take(TakeKind::Asked);
        let second = at.with(&taken);
        // The delta has all three names, though only one was used.
        assert_eq!(at.text(&second, "d/three"), format!("{}more", "1".repeat(2000)));
        assert_eq!(linked(at, &mut running, &second, ["one", "d/three"]), (true, true));
        // Once more, in the layer that came in its place; and with a name less.
        running.python("open(at + '/one', 'w').write('new'); os.remove(at + '/two')");
        let third = at.with(&running.take(TakeKind::Asked));
        assert_eq!(at.text(&third, "d/three"), "new");
        assert_eq!(linked(at, &mut running, &third, ["one", "d/three"]), (true, true));
        assert_eq!(running.python("os.stat(at + '/one').st_nlink"), 2);
        let mut other = at.run("other", &third);
        assert_eq!(linked(at, &mut other, &third, ["one", "d/three"]), (true, true));
        other.end().0.forget().unwrap();
        running.end().0.forget().unwrap();
    });
}

#[test]
fn modes_owners_times_and_attributes_are_those_that_were_set() {
    everywhere(|at| {
        let base = at.version(&[("file", &"f".repeat(5000)), ("d/x", "x")]);
        let mut running = at.run("one", &base);
        running.python(
            "os.chmod(at + '/file', 0o4751); os.chown(at + '/d', 33, 34); os.utime(at + '/file', ns=(5, 123456789)); \
             os.setxattr(at + '/d', 'user.note', b'noted'); os.mkfifo(at + '/pipe', 0o640); \
             open(at + '/own', 'w').write('o' * 5000); os.chmod(at + '/own', 0o600); os.chown(at + '/own', 5, 6); \
             os.chmod(at, 0o1777); os.symlink('nowhere', at + '/symlink')",
        );
        let about = "[(os.lstat(p).st_mode, os.lstat(p).st_uid, os.lstat(p).st_gid, os.lstat(p).st_mtime_ns) \
                     for p in [at, at + '/file', at + '/d', at + '/pipe', at + '/own', at + '/symlink']]";
        let before = running.python(about);
        let taken = running.take(TakeKind::Asked);
        // The same in the fresh layer, in another container, and after the end.
        assert_eq!(running.python(about), before);
        let mut other = at.run("two", &at.with(&taken));
        assert_eq!(other.python(about), before);
        assert_eq!(other.python("os.getxattr(at + '/d', 'user.note').decode()"), "noted");
        other.end().0.forget().unwrap();
        let (volume, nothing) = running.end();
        assert_eq!(nothing.delta, None);
        volume.forget().unwrap();
    });
}
