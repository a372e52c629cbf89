//! What `stat` and its like say.

use homeport_content::{Leaf, LeafKind, Metadata};
use serde_json::json;

use super::{assert_each, assert_yields, begin, ended, on_images};

#[test]
fn removed_files_have_a_link() {
    on_images(|at| {
        let mut running = begin(at, "one", &at.version(&[("read", "r"), ("write", "w")]));
        running.python("reader = os.open(at + '/read', os.O_RDONLY); os.remove(at + '/read')");
        running.python("writer = os.open(at + '/write', os.O_RDWR); os.remove(at + '/write')");
        assert_yields(&mut running, "[os.fstat(reader).st_nlink, os.fstat(writer).st_nlink]", json!([1, 0]));
        running.python("os.close(reader); os.close(writer)");
        ended(at, running);
    });
}

#[test]
fn acls_need_a_change_first() {
    on_images(|at| {
        let mut running = begin(at, "one", &at.version(&[("file", "f"), ("dir/in", "i")]));
        let [file, access, default] = [("file", "access"), ("dir", "access"), ("dir", "default")]
            .map(|(name, kind)| format!("os.setxattr(at + '/{name}', 'system.posix_acl_{kind}', ACL)"));
        let refused = [&file, &access, &default].map(|act| (&**act, "ENOTSUP"));
        assert_each(&mut running, &refused);
        running.python("os.chmod(at + '/file', 0o640); os.utime(at + '/dir')");
        let set = [&file, &access, &default].map(|act| (&**act, "ok"));
        assert_each(&mut running, &set);
        let version = ended(at, running);
        let mut running = begin(at, "two", &version);
        for (path, kind) in [("file", "access"), ("dir", "default")] {
            let code = format!("os.getxattr(at + '/{path}', 'system.posix_acl_{kind}') == ACL");
            assert_yields(&mut running, &code, json!(true));
        }
        ended(at, running);
    });
}

#[test]
fn flags_need_a_change_first() {
    on_images(|at| {
        let mut running = begin(at, "one", &at.version(&[("file", "f"), ("dir/in", "i")]));
        for path in ["/file", "/dir"] {
            let (look, set) = (format!("flags({path:?})"), format!("flags({path:?}, NODUMP)"));
            assert_each(&mut running, &[(&*look, "ENOTTY"), (&*set, "ENOTTY"), (&*look, "ENOTTY")]);
            running.python(&format!("os.utime(at + {path:?})"));
            assert_yields(&mut running, &look, json!(0));
            assert_yields(&mut running, &set, json!(0x40));
        }
        let version = ended(at, running);
        let mut running = begin(at, "two", &version);
        running.python("os.utime(at + '/file')");
        assert_yields(&mut running, "flags('/file')", json!(0));
        ended(at, running);
    });
}

#[test]
fn reading_leaves_atime() {
    on_images(|at| {
        let mut running = begin(at, "one", &at.version(&[("file", "f")]));
        running.python("first = os.stat(at + '/file').st_atime_ns");
        running.python("read = lambda: (open(at + '/file').read(), os.stat(at + '/file').st_atime_ns)[1]");
        assert_yields(&mut running, "read() == first", json!(true));
        running.python("os.utime(at + '/file', (1, 1))");
        assert_yields(&mut running, "read() > 10**9", json!(true));
        ended(at, running);
    });
}

#[test]
fn opening_for_writing_sets_ctime() {
    on_images(|at| {
        let mut running = begin(at, "one", &at.version(&[("file", "f")]));
        running.python(
            "def times():\n about = os.stat(at + '/file')\n return about.st_ctime_ns, about.st_mtime_ns",
        );
        running.python("before = times(); opened('/file', os.O_RDWR); after = times()");
        assert_yields(&mut running, "[after[0] > before[0], after[1] == before[1]]", json!([true, true]));
        running.python("time.sleep(0.02); opened('/file', os.O_RDWR)");
        assert_yields(&mut running, "times() == after", json!(true));
        ended(at, running);
    });
}

#[test]
fn versions_have_their_own_inode_numbers() {
    on_images(|at| {
        let mut running = begin(at, "make", &at.version(&[]));
        running.python("open(at + '/file', 'w').close(); time.sleep(0.02); os.chmod(at + '/file', 0o600)");
        running.python("about = os.stat(at + '/file')");
        assert_yields(&mut running, "about.st_ctime_ns > about.st_mtime_ns", json!(true));
        let first = running.python("about.st_ino");
        let second = ended(at, running);
        // The same file, in a version of other layers.
        let mut tree = at.layers(&second).flatten();
        for number in 0..10 {
            let content = at.store.file_content(&b"more"[..]).unwrap();
            let leaf = Leaf { metadata: Metadata::with_mode(0o644), kind: LeafKind::File(content) };
            tree.insert_leaf(format!("a{number}").as_bytes(), leaf).unwrap();
        }
        let third = homeport_content::Stack::of(at.store.put_tree(&tree).unwrap());
        let mut numbers = vec![first];
        for (key, version) in [("two", &second), ("three", &third)] {
            let mut running = begin(at, key, version);
            running.python("about = os.stat(at + '/file')");
            assert_yields(&mut running, "about.st_ctime_ns == about.st_mtime_ns", json!(true));
            numbers.push(running.python("about.st_ino"));
            ended(at, running);
        }
        assert!(numbers[0] != numbers[1] && numbers[1] != numbers[2], "{numbers:?}");
    });
}

#[test]
fn birth_time_is_that_of_the_first_change() {
    on_images(|at| {
        let mut running = begin(at, "one", &at.version(&[("file", "f"), ("dir/in", "i")]));
        running.python("began = time.time_ns() - 10**8");
        running.python("open(at + '/new', 'w').close()");
        assert_yields(&mut running, "birth('/new') > began", json!(true));
        for path in ["/file", "/dir"] {
            assert_yields(&mut running, &format!("birth({path:?})"), json!(null));
            running.python(&format!("os.utime(at + {path:?}, (1, 1))"));
            assert_yields(&mut running, &format!("birth({path:?}) > began"), json!(true));
        }
        let version = ended(at, running);
        let mut running = begin(at, "two", &version);
        assert_yields(&mut running, "birth('/new')", json!(null));
        ended(at, running);
    });
}

#[test]
fn changed_directories_have_one_link() {
    on_images(|at| {
        let mut running = begin(at, "one", &at.version(&[("dir/a/in", "i"), ("dir/b/in", "i")]));
        let links = "os.stat(at + '/dir').st_nlink";
        assert_yields(&mut running, links, json!(4));
        running.python("open(at + '/dir/new', 'w').close()");
        assert_yields(&mut running, links, json!(1));
        // The kernel counts those of directories that are new as ever.
        running.python("os.makedirs(at + '/new/a')");
        assert_yields(&mut running, "os.stat(at + '/new').st_nlink", json!(3));
        ended(at, running);
    });
}
