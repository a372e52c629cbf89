"""The store beside what goes on in it: garbage is collected, and the disk is full."""

import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
import uuid
from pathlib import Path
from typing import Dict, Iterator, List

import pytest

from harness.client import Client
from harness.paths import CACHE
from harness.server import Server, homeport

MIB = 1 << 20
SMALL_DISK = 6 << 30


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def said(server: Server, *arguments: str) -> str:
    done = homeport(*arguments, data_dir=server.data_dir, timeout=500)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


class Collector(threading.Thread):
    """Collects garbage without a pause and without grace."""

    def __init__(self, server: Server):
        super().__init__()
        self.server = server
        self.stopped = threading.Event()
        self.failures: List[str] = []
        self.rounds = 0

    def run(self) -> None:
        while not self.stopped.is_set():
            done = homeport("gc", "--older-than", "0s", data_dir=self.server.data_dir)
            self.rounds += 1
            if done.returncode != 0:
                self.failures.append(done.stdout + done.stderr)

    def __enter__(self) -> "Collector":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.join()


@pytest.mark.once
def test_nothing_that_is_used_is_collected_whatever_goes_on(client: Client, server: Server) -> None:
    name = f"storm-{uuid.uuid4().hex[:10]}"
    mark = uuid.uuid4().hex
    # What other tests left would keep the first round busy.
    said(server, "gc", "--older-than", "0s")
    with Collector(server) as collector:
        seen = client.run("storage.py::storm", timeout=500, VOLUME=name, MARK=mark).results
        again = client.run("storage.py::storm", timeout=500, VOLUME=name, MARK=mark).results
    assert collector.failures == [] and collector.rounds > 3, (collector.rounds, collector.failures[:3])
    for result in (seen, again):
        assert result["written"] == result["seen"] and len(result["seen"]) == 4, result
        assert result["built"] == [mark, True], result
    assert "all is well" in said(server, "fsck")
    # What was in the image and in the Volume is garbage when nobody has it any more.
    client.modal("volume", "delete", name, "--yes")
    assert client.run("storage.py::image_built", MARK=mark).results["built"] == [mark, True]
    assert "all is well" in said(server, "fsck")


@pytest.fixture
def small_disk(machine: None, server: Server, tmp_path: Path) -> Iterator[Server]:
    """A server on an ext4 of its own that is not much larger than what it needs, with the images of the session."""
    # Containers' users pass through all directories above.
    place = Path(tempfile.mkdtemp(prefix="homeport-disk-"))
    place.chmod(0o755)
    image, root = place / "disk", place / "root"
    root.mkdir()
    with open(image, "wb") as file:
        file.truncate(SMALL_DISK)
    run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
    run("mount", "-o", "loop", str(image), str(root))
    own = Server(root / "data", tmp_path / "server.log")
    try:
        # The other server may be at work; what it does not change any more is enough.
        server.stop()
        try:
            run("cp", "-a", str(CACHE / "data"), str(root / "data"))
        finally:
            server.start("--gpu-fallback", "cpu")
        own.start("--gpu-fallback", "cpu")
        yield own
        if own.process is not None:
            own.stop()
    finally:
        own.kill()
        subprocess.run(["umount", str(root)], check=False)
        shutil.rmtree(place, ignore_errors=True)


class Filler:
    """A file that takes all space but a little."""

    def __init__(self, server: Server):
        self.path = server.data_dir.parent / "filler"

    def leave(self, free: int) -> None:
        self.remove()
        space = os.statvfs(self.path.parent)
        taken, step = 0, max(space.f_bavail * space.f_frsize - free, 0)
        with open(self.path, "wb") as file:
            while step >= 4096:
                try:
                    os.posix_fallocate(file.fileno(), taken, step)
                    taken += step
                    if free:
                        return
                except OSError:
                    step //= 2

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.once
def test_a_full_disk_costs_nothing_that_was_committed(small_disk: Server, client: Client, tmp_path: Path) -> None:
    mine = Client(client.version, small_disk, tmp_path)
    filler = Filler(small_disk)
    name = "weights"
    first = mine.run("storage.py::commit", "--size", str(MIB), VOLUME=name).results
    kept: Dict[str, str] = {"file-0": sha256(bytes([0]) * MIB)}
    assert first["error"] is None and first["written"] == kept, first

    # Enough to write the file in the container, not enough for a second copy of it in the store.
    filler.leave(120 * MIB)
    refused = mine.run("storage.py::commit", "--size", str(80 * MIB), VOLUME=name).results
    assert refused["written"] is None and "no space" in refused["error"].lower(), refused

    (tmp_path / "large").write_bytes(os.urandom(60 * MIB))
    filler.leave(40 * MIB)
    put = mine.modal("volume", "put", name, str(tmp_path / "large"), check=False)
    assert put.code != 0 and "no space" in put.flat.lower(), put
    # What came of the upload is kept for another attempt, and takes room.
    filler.leave(40 * MIB)
    build = mine.run("storage.py::image_built", check=False, MARK="large", NOISE=str(60 * MIB))
    assert build.code != 0 and "no space" in build.flat.lower(), build

    # A row may fit into what the database has already. It is there, or it is said that there is no space.
    filler.leave(0)
    create = mine.modal("volume", "create", "one-more", check=False)
    assert create.code == 0 or "no space" in create.flat.lower(), create
    small_disk.kill()
    filler.remove()
    small_disk.start("--gpu-fallback", "cpu")

    assert ("one-more" in mine.modal("volume", "list").flat) == (create.code == 0), create
    # What the refused commit was of needs no copy any more when its container ends: it may be in by now.
    possible = [kept["file-0"], sha256(bytes([0]) * 80 * MIB)]
    assert mine.run("storage.py::saw", VOLUME=name).results["seen"]["file-0"] in possible
    mine.modal("volume", "put", name, str(tmp_path / "large"))
    second = mine.run("storage.py::commit", "--size", str(2 * MIB), VOLUME=name).results
    assert second["error"] is None and second["written"]["file-0"] == sha256(bytes([0]) * 2 * MIB), second
    assert second["written"]["large"] == sha256((tmp_path / "large").read_bytes())
    assert mine.run("storage.py::image_built", MARK="large", NOISE=str(60 * MIB)).results["built"] == ["large", True]
    assert "all is well" in said(small_disk, "fsck")
