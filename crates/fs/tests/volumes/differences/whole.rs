//! What holds for the whole mount.

use homeport_fs::BackendChoice;
use serde_json::json;

use super::{assert_each, assert_yields, begin, ended, on, on_images};
use crate::place::{Place, place};
use crate::snapshots::isolated;

#[test]
fn some_calls_are_refused() {
    // Not with mapped ids, where the right to most of this is missing anyway.
    isolated(|| {
        let at = Place::new(BackendChoice::Erofs, false);
        let mut running = begin(&at, "one", &at.version(&[("file", "f")]));
        running.python("open(at + '/new', 'w').write('new')");
        running.python(
            r#"
import stat
def device(number): os.mknod(at + '/device', stat.S_IFCHR | 0o600, number)
def whiteout(): kernel('renameat2', -100, (at + '/file').encode(), -100, (at + '/other').encode(), 4)
def handle(path):
    found = ctypes.create_string_buffer(struct.pack('<Ii', 128, 0) + bytes(128))
    kernel('name_to_handle_at', -100, (at + path).encode(), found, ctypes.byref(ctypes.c_int()), 0)
def at_once(path):
    file = os.open(at + path, os.O_RDONLY)
    try: os.preadv(file, [bytearray(1)], 0, os.RWF_NOWAIT)
    finally: os.close(file)
def swap():
    with open(at + '/swap', 'wb') as file:
        file.write(bytes(1 << 20))
        os.fchmod(file.fileno(), 0o600)
    subprocess.run(['mkswap', '-q', at + '/swap'], check=True)
    kernel('swapon', (at + '/swap').encode(), 0)
    kernel('swapoff', (at + '/swap').encode())
def freeze():
    file = os.open(at, os.O_RDONLY)
    try:
        fcntl.ioctl(file, 0xc0045877, 0)
        fcntl.ioctl(file, 0xc0045878, 0)
    finally:
        os.close(file)
"#,
        );
        let cases = [
            ("device(0)", "EPERM"),
            ("device(os.makedev(1, 3))", "ok"),
            ("whiteout()", "EINVAL"),
            ("handle('/file')", "ENOTSUP"),
            ("handle('/new')", "ENOTSUP"),
            ("at_once('/file')", "ENOTSUP"),
            ("at_once('/new')", "ENOTSUP"),
            ("swap()", "EINVAL"),
            ("freeze()", "ENOTSUP"),
        ];
        assert_each(&mut running, &cases);
        ended(&at, running);
    });
}

#[test]
fn sockets_are_not_committed() {
    on_images(|at| {
        let mut running = begin(at, "one", &at.version(&[("file", "f")]));
        running.python(
            "listening = socket.socket(socket.AF_UNIX); listening.bind(at + '/socket'); listening.listen()",
        );
        running.python("os.mkfifo(at + '/fifo')");
        assert_each(&mut running, &[("socket.socket(socket.AF_UNIX).connect(at + '/socket')", "ok")]);
        running.python("listening.close()");
        let version = ended(at, running);
        assert_eq!(at.paths(&version), ["fifo", "file"]);
    });
}

#[test]
fn locks_hold_within_one_container() {
    on_images(|at| {
        let version = at.version(&[("file", "f")]);
        let places = [place("/a", "", false), place("/b", "", false)];
        let mut one = at.run_at("one", &version, &places);
        let mut two = at.run("two", &version);
        one.python("held = open(at + '/file', 'r+'); fcntl.flock(held, fcntl.LOCK_EX)");
        let lock = "fcntl.flock(open(at + '/file', 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)";
        two.python(lock);
        for place in ["/a", "/b"] {
            let refused = one.container.try_run(&lock.replace("at ", &format!("{place:?} ")));
            assert!(refused.unwrap_err().contains("BlockingIOError"));
        }
        one.python("fcntl.flock(held, fcntl.LOCK_UN)");
        assert_yields(&mut one, lock, json!(null));
        ended(at, two);
        ended(at, one);
    });
}

#[test]
fn links_in_place_of_images_have_attributes_of_their_own() {
    on(BackendChoice::Linked, |at| {
        let mut running = begin(at, "make", &at.version(&[]));
        running.python("open(at + '/file', 'w').close()");
        running.python("with open(at + '/holes', 'wb') as file: file.truncate(4 << 20); file.write(b'x')");
        let mut running = begin(at, "one", &ended(at, running));
        running.python("about = os.stat(at + '/file')");
        assert_yields(&mut running, "about.st_ctime_ns > about.st_mtime_ns", json!(true));
        assert_yields(&mut running, "birth('/file') > about.st_mtime_ns", json!(true));
        assert_yields(&mut running, "flags('/file')", json!(0));
        assert_yields(&mut running, "os.stat(at + '/holes').st_blocks * 512 >= 4 << 20", json!(true));
        let acl = "os.setxattr(at + '/file', 'system.posix_acl_access', ACL)";
        assert_each(&mut running, &[(acl, "ok")]);
        ended(at, running);
    });
}
