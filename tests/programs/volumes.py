"""Containers that share a Volume. Each entrypoint is a scenario that they play, and reports what they saw."""

import contextlib
import ctypes
import errno
import fcntl
import inspect
import json
import mmap
import os
import signal
import stat
import sys
import threading
import time

import modal

volume = modal.Volume.from_name(os.environ.get("VOLUME", "volumes"), create_if_missing=True)
app = modal.App("volumes", image=modal.Image.debian_slim(python_version="3.11"))
options = {"volumes": {"/vol": volume}, "cpu": 0.1}
single = {"single_use_containers": True}
if not single.keys() <= inspect.signature(modal.App.function).parameters.keys():
    single = {"max_inputs": 1}

held = {}  # what a container remembers from one call to the next


def write(path, text, mode="w"):
    with open(path, mode) as file:
        file.write(text)


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError as error:
        return errno.errorcode[error.errno]


def everything():
    """The content of all files, by path."""
    found = {}
    for directory, _, names in os.walk("/vol"):
        for name in names:
            path = os.path.join(directory, name)
            found[os.path.relpath(path, "/vol")] = read(path)
    return found


def remove(path):
    os.remove(path)


def commit():
    volume.commit()


def reload():
    """Reloads the Volume; the answer is why it could not."""
    try:
        volume.reload()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def commit_text(path, text):
    write(path, text)
    volume.commit()


def hold(path, mode):
    held[path] = open(path, mode)
    return held[path].read() if mode == "r" else None


def write_held(path, text):
    held[path].write(text)
    held[path].flush()


def read_held(path):
    held[path].seek(0)
    return held[path].read()


def map_held(path):
    held["map"] = mmap.mmap(held[path].fileno(), 0, prot=mmap.PROT_READ)


def read_map():
    return held["map"][:].decode()


def close(path):
    held.pop(path).close()


def enter(path):
    os.chdir(path)


def leave():
    os.chdir("/root")


def read_many(path, seconds):
    """Opens and reads a file in a tight loop, beside what else this container does."""
    seen = {"reads": 0, "errors": [], "texts": set()}
    held["reader"] = seen
    end = time.monotonic() + seconds

    def loop():
        while not held.get("stop") and time.monotonic() < end:
            try:
                with open(path) as file:
                    seen["texts"].add(file.read())
                os.stat(path)
                seen["reads"] += 1
            except OSError as error:
                seen["errors"].append(repr(error))

    held["thread"] = threading.Thread(target=loop)
    held["thread"].start()


def stop_reading():
    held["stop"] = True
    held["thread"].join()
    return {**held["reader"], "texts": sorted(held["reader"]["texts"])}


def reload_many(times):
    slowest, began = 0.0, time.monotonic()
    for _ in range(times):
        before = time.monotonic()
        volume.reload()
        slowest = max(slowest, time.monotonic() - before)
    return {"seconds": time.monotonic() - began, "slowest": slowest}


def commit_many(path, times):
    for number in range(times):
        write(path + ".new", f"text {number:04}")
        os.rename(path + ".new", path)
        volume.commit()


def count_commits(directory):
    """Commits numbered files until somebody ends it, and tells each that is committed."""
    os.makedirs(directory)
    for number in range(10_000):
        write(f"{directory}/{number}", f"number {number}")
        volume.commit()
        print(f"committed {number}", flush=True)


def call_sync(*arguments):
    return os.spawnvp(os.P_WAIT, "sync", ["sync", *arguments])


def space(path="/vol"):
    found = os.statvfs(path)
    return {"bytes": found.f_blocks * found.f_frsize, "free": found.f_bavail * found.f_frsize, "files": found.f_files}


def die(way, path, text):
    """Writes a file and ends without committing it."""
    with open(path, "w") as file:
        file.write(text)
        if way == "open file":
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    if way == "exception":
        raise ValueError("as it was asked to")
    if way == "sys.exit":
        sys.exit(3)
    if way == "os._exit":
        os._exit(3)
    if way == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "timeout":
        time.sleep(100)
    if way == "out of memory":
        return len(b"x" * (900 << 20))


def make_odd_files():
    """One of each kind that a Volume can hold."""
    os.makedirs("/vol/tree/inner")
    write("/vol/tree/inner/file", "in a renamed directory")
    os.rename("/vol/tree", "/vol/renamed")
    write("/vol/linked", "two names")
    os.link("/vol/linked", "/vol/other name")
    os.symlink("linked", "/vol/symbolic")
    write("/vol/modes", "x")
    os.chown("/vol/modes", 1000, 1001)
    os.chmod("/vol/modes", 0o4751)
    os.utime("/vol/modes", ns=(1_000_000_007, 1_234_567_890_123_456_789))
    os.setxattr("/vol/modes", "user.kind", b"odd\0value")
    os.mkfifo("/vol/pipe")
    with open("/vol/sparse", "wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"island")
    with open(b"/vol/" + b"n" * 253 + b"\xff\xfe", "w") as file:
        file.write("a long name that is no text")
    direct = os.open("/vol/direct", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    with mmap.mmap(-1, 4096) as page:
        page.write(b"d" * 4096)
        os.write(direct, page)
    os.close(direct)
    with open("/vol/mapped", "w+b") as file:
        file.truncate(8192)
        with mmap.mmap(file.fileno(), 8192) as pages:
            pages[4000:4200] = b"m" * 200
            pages.flush()
    with open("/vol/many", "w") as file:
        os.fsync(file.fileno())
    os.mkdir("/vol/empty directory")


def look_at_odd_files():
    def digest(path):
        with open(path, "rb") as file:
            content = file.read()
        return [len(content), len(content.strip(b"\0"))]

    with open("/vol/sparse", "rb") as file:
        file.seek(32 << 20)
        island = file.read(6)
    # Of a committed file that nobody opened yet the kernel only guesses the blocks from the size.
    modes, sparse = os.stat("/vol/modes"), os.stat("/vol/sparse")
    return {
        "names": sorted(os.fsencode(name).hex()[:40] for name in os.listdir("/vol")),
        "renamed": read("/vol/renamed/inner/file"),
        "same inode": os.stat("/vol/linked").st_ino == os.stat("/vol/other name").st_ino,
        "links": os.stat("/vol/linked").st_nlink,
        "symbolic": os.readlink("/vol/symbolic"),
        "modes": [oct(modes.st_mode), modes.st_uid, modes.st_gid, modes.st_mtime_ns],
        "attribute": os.getxattr("/vol/modes", "user.kind").hex(),
        "pipe": stat.S_ISFIFO(os.stat("/vol/pipe").st_mode),
        "sparse": [sparse.st_size, sparse.st_blocks * 512 <= 1 << 20],
        "island": island.decode(),
        "long name": read(b"/vol/" + b"n" * 253 + b"\xff\xfe"),
        "direct": digest("/vol/direct"),
        "mapped": digest("/vol/mapped"),
        "one device": len({os.stat(os.path.join("/vol", name)).st_dev for name in os.listdir("/vol")}) == 1,
    }


def change_odd_files():
    """What must work on committed files as on any others; the answer is what did not."""
    failures = []

    @contextlib.contextmanager
    def attempt(what):
        try:
            yield
        except Exception as error:
            failures.append(f"{what}: {error!r}")

    libc = ctypes.CDLL(None, use_errno=True)

    def rename(old, new, flags):
        if libc.renameat2(-100, old.encode(), -100, new.encode(), flags) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    with attempt("rename a committed directory"):
        os.rename("/vol/renamed", "/vol/renamed again")
        assert read("/vol/renamed again/inner/file") == "in a renamed directory"
        assert not os.path.exists("/vol/renamed")
        os.rename("/vol/renamed again", "/vol/renamed")
    with attempt("exchange"):
        write("/vol/left", "left")
        rename("/vol/left", "/vol/linked", 2)
        assert (read("/vol/left"), read("/vol/linked")) == ("two names", "left")
        rename("/vol/left", "/vol/linked", 2)
        os.remove("/vol/left")
    with attempt("no replace"):
        try:
            rename("/vol/linked", "/vol/modes", 1)
            raise AssertionError("it replaced a file")
        except OSError as error:
            assert error.errno == errno.EEXIST, error
    with attempt("append through one of two names"):
        write("/vol/linked", " and more", "a")
        assert read("/vol/other name") == "two names and more"
        assert os.stat("/vol/linked").st_nlink == 2
    with attempt("link a committed file"):
        os.link("/vol/modes", "/vol/modes too")
        assert os.stat("/vol/modes").st_nlink == 2
        os.remove("/vol/modes too")
    with attempt("locks"), open("/vol/linked") as first, open("/vol/linked", "r+") as second:
        fcntl.flock(first, fcntl.LOCK_EX)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            raise AssertionError("two locks on one file")
        except BlockingIOError:
            pass
        fcntl.flock(first, fcntl.LOCK_UN)
        fcntl.lockf(second, fcntl.LOCK_EX)
        child = os.fork()
        if child == 0:
            with open("/vol/linked", "r+") as third:
                try:
                    fcntl.lockf(third, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os._exit(1)
                except OSError:
                    os._exit(0)
        assert os.waitpid(child, 0)[1] == 0, "a lock of another process was ignored"
    with attempt("shared mapping of a committed file"), open("/vol/mapped", "r+b") as file:
        with mmap.mmap(file.fileno(), 0) as pages:
            pages[0:5] = b"start"
            pages.flush()
            assert os.pread(file.fileno(), 5, 0) == b"start"
            pages[0:5] = b"\0" * 5
    with attempt("write directly"):
        direct = os.open("/vol/direct", os.O_RDWR | os.O_DIRECT)
        with mmap.mmap(-1, 4096) as page:
            page.write(b"d" * 4096)
            os.pwrite(direct, page, 4096)
        os.ftruncate(direct, 4096)
        os.close(direct)
    with attempt("punch a hole"), open("/vol/direct", "r+b") as file:
        assert libc.fallocate(file.fileno(), 3, ctypes.c_long(0), ctypes.c_long(4096)) == 0
        assert os.pread(file.fileno(), 4096, 0) == b"\0" * 4096
        os.pwrite(file.fileno(), b"d" * 4096, 0)
    with attempt("attributes"):
        os.setxattr("/vol/linked", "user.more", b"1")
        assert os.listxattr("/vol/linked") == ["user.more"]
        os.removexattr("/vol/linked", "user.more")
    with attempt("remove and make a directory again"):
        os.rmdir("/vol/empty directory")
        os.mkdir("/vol/empty directory")
        assert os.listdir("/vol/empty directory") == []
    return failures


ACTIONS = {name: value for name, value in globals().items() if inspect.isfunction(value)}


@app.function(**options)
def one(action, *arguments):
    return ACTIONS[action](*arguments)


@app.function(**options)
def two(action, *arguments):
    return ACTIONS[action](*arguments)


@app.function(**options, **single)
def fresh(action, *arguments):
    """In a container of its own."""
    return ACTIONS[action](*arguments)


@app.function(**options, timeout=5)
def hasty(action, *arguments):
    return ACTIONS[action](*arguments)


@app.function(**options, memory=(128, 300))
def small(action, *arguments):
    return ACTIONS[action](*arguments)


def report(**results):
    print("RESULT " + json.dumps(results))


@app.local_entrypoint()
def versions():
    seen = {"empty": two.remote("everything")}
    one.remote("commit_text", "/vol/a", "first")
    seen["started before"] = two.remote("everything")
    seen["started after"] = fresh.remote("everything")
    two.remote("reload")
    seen["reloaded"] = two.remote("everything")
    two.remote("hold", "/vol/a", "r")
    two.remote("map_held", "/vol/a")
    two.remote("enter", "/vol")
    one.remote("commit_text", "/vol/a", "second")
    seen["reload with open file"] = two.remote("reload")
    seen["open file"] = two.remote("read_held", "/vol/a")
    seen["mapping"] = two.remote("read_map")
    seen["working directory"] = two.remote("read", "a")
    seen["by path"] = two.remote("read", "/vol/a")
    two.remote("leave")
    report(**seen)


@app.local_entrypoint()
def open_for_writing():
    one.remote("hold", "/vol/log", "w")
    one.remote("write_held", "/vol/log", "first ")
    one.remote("commit")
    seen = {"first": fresh.remote("read", "/vol/log")}
    one.remote("write_held", "/vol/log", "second ")
    one.remote("commit")
    seen["second"] = fresh.remote("read", "/vol/log")
    two.remote("commit_text", "/vol/other", "x")
    seen["refused"] = one.remote("reload")
    one.remote("write_held", "/vol/log", "third")
    one.remote("close", "/vol/log")
    seen["reloaded"] = one.remote("reload")
    seen["all"] = one.remote("everything")
    report(**seen)


@app.local_entrypoint()
def background():
    one.remote("write", "/vol/unasked", "written")
    began = time.monotonic()
    while fresh.remote("read", "/vol/unasked") != "written" and time.monotonic() < began + 60:
        time.sleep(0.5)
    report(seconds=time.monotonic() - began, text=fresh.remote("read", "/vol/unasked"))


@app.local_entrypoint()
def deaths():
    ways = ["exception", "sys.exit", "os._exit", "kill", "open file"]
    functions = {way: fresh for way in ways}
    functions.update({"timeout": hasty, "out of memory": small})
    seen = {}
    for way, function in functions.items():
        try:
            function.remote("die", way, f"/vol/{way}", f"before the {way}")
            error = ""
        except BaseException as raised:
            error = type(raised).__name__
        began = time.monotonic()
        # A container that only raised an exception goes on, and is committed when it ends or in the background.
        while fresh.remote("read", f"/vol/{way}") != f"before the {way}" and time.monotonic() < began + 60:
            time.sleep(0.5)
        seen[way] = {"error": error, "text": fresh.remote("read", f"/vol/{way}"), "seconds": time.monotonic() - began}
    report(**seen)


@app.local_entrypoint()
def conflicts():
    one.remote("commit_text", "/vol/both", "at first")
    two.remote("reload")
    one.remote("write", "/vol/of one", "1")
    one.remote("write", "/vol/both", "from one")
    two.remote("write", "/vol/of two", "2")
    two.remote("write", "/vol/both", "from two")
    one.remote("commit")
    two.remote("commit")
    seen = {"merged": fresh.remote("everything")}
    one.remote("reload")
    two.remote("reload")
    seen["one"], seen["two"] = one.remote("everything"), two.remote("everything")
    one.remote("remove", "/vol/of one")
    two.remote("write", "/vol/of two", "2 again")
    two.remote("commit")
    one.remote("commit")
    seen["removed"] = fresh.remote("everything")
    report(**seen)


@app.local_entrypoint()
def storm(times: int = 200):
    one.remote("commit_text", "/vol/file", "text 0000")
    two.remote("reload")
    two.remote("read_many", "/vol/file", 120)
    commits = one.spawn("commit_many", "/vol/file", times)
    reloads = two.remote("reload_many", times)
    commits.get()
    two.remote("reload")
    last = two.remote("read", "/vol/file")
    report(reader=two.remote("stop_reading"), reloads=reloads, last=last)


@app.local_entrypoint()
def odd_files():
    one.remote("make_odd_files")
    seen = {"made": one.remote("look_at_odd_files")}
    one.remote("commit")
    seen["kept"] = one.remote("look_at_odd_files")
    seen["committed"] = fresh.remote("look_at_odd_files")
    seen["failures"] = two.remote("change_odd_files")
    two.remote("commit")
    report(**seen, space=fresh.remote("space"))


@app.local_entrypoint()
def synced():
    one.remote("write", "/vol/synced", "at once")
    code = one.remote("call_sync", "/vol")
    report(code=code, text=fresh.remote("read", "/vol/synced"))


@app.local_entrypoint()
def leave_work(name: str):
    """Commits a file, writes another one and goes on until it is ended from outside."""
    one.remote("commit_text", f"/vol/{name} committed", "committed")
    one.remote("write", f"/vol/{name} loose", "not committed")
    two.remote("everything")
    print("work is left", flush=True)
    time.sleep(300)


@app.local_entrypoint()
def count(name: str):
    one.remote("count_commits", f"/vol/{name}")


@app.local_entrypoint()
def look():
    report(files=fresh.remote("everything"))
