"""What was in a Volume, and what the store has of it: the commands beside the client's own."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import blake3
import pytest

from harness.client import Client, Run
from harness.matrix import CLIENT_VERSIONS
from harness.paths import HOMEPORT
from harness.server import Server, homeport

MIB = 1 << 20


class Home:
    """A server with nothing on it but Volumes, and the newest client in front of it."""

    def __init__(self, server: Server, client: Client):
        self.server = server
        self.client = client

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return homeport(*arguments, data_dir=self.server.data_dir)

    def said(self, *arguments: str) -> str:
        run = self.run(*arguments)
        assert run.returncode == 0, f"{arguments}: {run.stdout}{run.stderr}"
        return run.stdout

    def refused(self, *arguments: str) -> str:
        run = self.run(*arguments)
        assert run.returncode == 1, f"{arguments}: {run.stdout}{run.stderr}"
        return run.stderr

    def json(self, *arguments: str) -> Any:
        return json.loads(self.said(*arguments, "--json"))

    def log(self, volume: str) -> List[Dict[str, Any]]:
        return self.json("volume", "log", volume)

    def diff(self, volume: str, *versions: str) -> List[Tuple[str, str]]:
        lines = self.said("volume", "diff", volume, *versions, "--json").splitlines()
        return [(entry["kind"], entry["path"]) for entry in map(json.loads, lines)]

    def modal(self, *arguments: str, check: bool = True) -> Run:
        return self.client.modal("volume", *arguments, check=check)

    def put(self, volume: str, path: Path, to: str = "/") -> None:
        self.modal("put", "--force", volume, str(path), to)

    def get(self, volume: str, path: str, where: Path) -> bytes:
        self.modal("get", "--force", volume, path, str(where))
        return where.read_bytes()

    def object_of(self, content: bytes) -> Path:
        name = blake3.blake3(content).hexdigest()
        return self.server.data_dir / "store" / "objects" / name[:2] / name[2:]


@pytest.fixture(scope="module")
def home(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    place = tmp_path_factory.mktemp("history")
    server = Server(place / "data", place / "server.log")
    try:
        server.start()
        yield Home(server, Client(CLIENT_VERSIONS[-1], server, place))
        if server.process is not None:
            server.stop()
    finally:
        server.kill()
    server.assert_no_traces()


@pytest.fixture
def volume(home: Home, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"v-{request.node.name.removeprefix('test_')[:50]}".replace("_", "-")
    home.modal("create", name)
    yield name
    home.modal("delete", "--yes", "--allow-missing", name)


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_every_change_is_a_version_and_a_restore_loses_none(home: Home, volume: str, tmp_path: Path) -> None:
    one = write(tmp_path / "one.txt", b"first")
    home.put(volume, one)
    home.put(volume, write(tmp_path / "tree/deep/two.txt", b"two").parent.parent, "/tree")
    home.put(volume, write(one, b"second, longer"))
    home.modal("rm", "-r", volume, "tree")

    log = home.log(volume)
    assert [version["number"] for version in log] == [4, 3, 2, 1]
    assert [(v["added"] > 0, v["changed"] > 0, v["removed"] > 0) for v in reversed(log)] == [
        (True, False, False),
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]
    assert (log[0]["files"], log[0]["bytes"]) == (1, len(b"second, longer"))
    table = home.said("volume", "log", volume)
    assert all(word in table for word in ("VERSION", "UTC", "+1 ~0 -0", "upload")), table
    assert len(home.json("volume", "log", volume, "-n", "2")) == 2

    assert home.diff(volume, "2", "3") == [("changed", "one.txt")]
    assert ("removed", "tree/deep/two.txt") in home.diff(volume)
    assert home.diff(volume, "1", "2") == [("added", "tree"), ("added", "tree/deep"), ("added", "tree/deep/two.txt")]
    assert f"+ tree/deep/two.txt  {len(b'two')} B" in home.said("volume", "diff", volume, "1", "2")

    assert "in version 5" in home.said("volume", "restore", volume, "--version", "2", "one.txt", "/tree/deep/")
    assert home.get(volume, "one.txt", tmp_path / "got") == b"first"
    assert home.get(volume, "tree/deep/two.txt", tmp_path / "got") == b"two"
    assert home.diff(volume, "2", "5") == []
    home.said("volume", "restore", volume, "--version", "4")
    assert home.diff(volume, "4") == [] and home.get(volume, "one.txt", tmp_path / "got") == b"second, longer"
    assert [version["number"] for version in home.log(volume)] == [6, 5, 4, 3, 2, 1]

    assert "no/such/file" in home.refused("volume", "restore", volume, "--version", "1", "no/such/file")
    assert f"homeport volume log {volume}" in home.refused("volume", "restore", volume, "--version", "77")
    assert "no Volume `nothing-here`" in home.refused("volume", "log", "nothing-here")


def test_a_tag_names_a_version_and_moves(home: Home, volume: str, tmp_path: Path) -> None:
    for content in (b"a", b"bb", b"ccc"):
        home.put(volume, write(tmp_path / "file", content))
    home.said("volume", "tag", volume, "best", "--version", "1")
    assert home.diff(volume, "best") == [("changed", "file")]
    assert "[best]" in home.said("volume", "log", volume)
    home.said("volume", "tag", volume, "best", "--version", "2")
    assert [version["number"] for version in home.log(volume) if version["tags"]] == [2]
    home.said("volume", "restore", volume, "--version", "best")
    assert home.get(volume, "file", tmp_path / "got") == b"bb"
    home.said("volume", "tag", volume, "best", "--remove")
    assert "best" in home.refused("volume", "restore", volume, "--version", "best")
    assert "`12` is no tag" in home.refused("volume", "tag", volume, "12")


def test_old_versions_go_but_not_those_with_a_tag(home: Home, volume: str, tmp_path: Path) -> None:
    settings = home.json("volume", "configure", volume, "--keep-versions", "3")
    assert settings["keep_versions"] == 3
    home.put(volume, write(tmp_path / "file", b"0"))
    home.said("volume", "tag", volume, "good")
    # Old versions are looked at after every sixteenth.
    for number in range(1, 17):
        home.put(volume, write(tmp_path / "file", b"%d" % number))
    kept = [version["number"] for version in home.log(volume)]
    assert len(kept) <= 5 and kept[0] == 17 and kept[-1] == 1, kept
    home.said("volume", "restore", volume, "--version", "good")
    assert home.get(volume, "file", tmp_path / "got") == b"0"


def test_a_fork_costs_nothing_and_goes_its_own_way(home: Home, volume: str, tmp_path: Path) -> None:
    content = os.urandom(4 * MIB)
    home.put(volume, write(tmp_path / "weights.bin", content))
    before = home.json("du")["total_bytes"]
    fork = f"{volume}-fork"[-64:].lstrip("-")
    home.said("volume", "fork", volume, fork)
    assert home.json("du")["total_bytes"] - before < 64 * 1024
    home.put(fork, write(tmp_path / "more.txt", b"more"))
    assert home.get(fork, "weights.bin", tmp_path / "got") == content
    assert home.diff(volume) == [("added", "weights.bin")]
    assert "exists already" in home.refused("volume", "fork", volume, fork)
    home.modal("delete", "--yes", volume)
    assert home.get(fork, "weights.bin", tmp_path / "got") == content
    home.modal("delete", "--yes", fork)


def test_a_model_of_the_hub_is_placed_at_no_cost(home: Home, volume: str, tmp_path: Path) -> None:
    weights = os.urandom(4 * MIB)
    write(tmp_path / "model/model.safetensors", weights)
    write(tmp_path / "model/tokenizer/vocab.txt", b"a b c")
    home.said("models", "import", str(tmp_path / "model"), "--as", "tests/tiny")
    home.put(volume, write(tmp_path / "mine.txt", b"mine"), "/models/tiny/mine.txt")
    before = home.json("du")["total_bytes"]
    assert "in version 2" in home.said("volume", "put-model", "tests/tiny", f"{volume}:/models/tiny")
    assert home.json("du")["total_bytes"] - before < 64 * 1024
    assert home.get(volume, "models/tiny/model.safetensors", tmp_path / "got") == weights
    assert home.get(volume, "models/tiny/tokenizer/vocab.txt", tmp_path / "got") == b"a b c"
    assert home.get(volume, "models/tiny/mine.txt", tmp_path / "got") == b"mine"
    # The other way: what is on a Volume is in the hub for nothing.
    assert "in version 2" in home.said("volume", "put-model", "tests/tiny", f"{volume}:models/tiny"), "nothing changed"
    assert "homeport models list" in home.refused("volume", "put-model", "tests/none", f"{volume}:/x")
    assert "no revision" in home.refused("volume", "put-model", "tests/tiny", f"{volume}:/x", "--revision", "v9")
    assert "mine.txt" in home.refused("volume", "put-model", "tests/tiny", f"{volume}:/models/tiny/mine.txt")


def test_settings_of_a_volume_are_shown_and_a_quota_holds(home: Home, volume: str, tmp_path: Path) -> None:
    shown = home.said("volume", "configure", volume)
    assert "as the server is set" in shown and "early copies    none" in shown, shown
    home.said("volume", "configure", volume, "--quota", "1MiB", "--early-copy", "*.db", "--early-copy", "*.mdb")
    settings = home.json("volume", "configure", volume, "--strict-reload", "true")
    assert settings == {
        "keep_versions": 0,
        "keep_days": 0,
        "strict_reload": True,
        "quota_bytes": MIB,
        "early_copies": ["*.db", "*.mdb"],
    }
    large = write(tmp_path / "large.bin", os.urandom(2 * MIB))
    run = home.modal("put", volume, str(large), "/", check=False)
    assert run.code != 0 and "configure" in run.flat and "quota" in run.flat, str(run)
    home.said("volume", "configure", volume, "--quota", "0", "--no-early-copies")
    home.put(volume, large)
    assert home.json("volume", "configure", volume)["early_copies"] == []


def test_volumes_are_listed_with_what_they_take(home: Home, volume: str, tmp_path: Path) -> None:
    home.put(volume, write(tmp_path / "file", bytes(2048)))
    (listed,) = [row for row in home.json("volume", "list") if row["name"] == volume]
    assert (listed["version"], listed["files"], listed["bytes"], listed["mounted"]) == (1, 1, 2048, 0)
    assert volume in home.said("volume", "list")
    assert home.json("volume", "list", "--env", "elsewhere") == []


def test_what_nothing_refers_to_is_removed_when_it_is_old_enough(home: Home, volume: str, tmp_path: Path) -> None:
    kept, gone = os.urandom(2 * MIB), os.urandom(8 * MIB)
    home.put(volume, write(tmp_path / "kept.bin", kept))
    home.modal("create", "short-lived")
    home.put("short-lived", write(tmp_path / "gone.bin", gone))
    rows = {(row["kind"], row["name"]): row for row in home.json("du")["rows"]}
    assert rows["volume", "short-lived"]["unique_bytes"] >= 8 * MIB, rows
    home.modal("delete", "--yes", "short-lived")
    assert home.json("du")["garbage_bytes"] >= 8 * MIB

    young = home.json("gc")
    assert young["removed_bytes"] < 8 * MIB and home.object_of(gone).exists()
    tried = home.json("gc", "--dry-run", "--older-than", "0s")
    assert tried["removed_bytes"] >= 8 * MIB and home.object_of(gone).exists()
    assert "freed" in home.said("gc", "--older-than", "0s")
    assert not home.object_of(gone).exists()
    assert home.get(volume, "kept.bin", tmp_path / "got") == kept
    assert home.json("fsck")["faults"] == []
    # What was collected can come again.
    home.put(volume, tmp_path / "gone.bin")
    assert home.get(volume, "gone.bin", tmp_path / "got") == gone


def test_an_altered_object_is_found_put_aside_and_mended(home: Home, volume: str, tmp_path: Path) -> None:
    content = os.urandom(3 * MIB)
    original = write(tmp_path / "good/weights.bin", content)
    home.put(volume, original)
    assert "all is well" in home.said("fsck")
    damaged = home.object_of(content)
    with open(damaged, "r+b") as file:
        file.seek(MIB)
        file.write(bytes([content[MIB] ^ 1]))

    found = home.run("fsck", "--json")
    report = json.loads(found.stdout)
    assert found.returncode == 1 and report["ok"] is False, found
    name = blake3.blake3(content).hexdigest()
    assert any(name[:16] in fault["fault"] for fault in report["faults"]), report

    aside = home.run("fsck", "--repair")
    assert aside.returncode == 1 and not damaged.exists(), aside
    refused = home.modal("get", "--force", volume, "weights.bin", str(tmp_path / "bad"), check=False)
    assert refused.code != 0, "bytes that are not the file's were served"

    mended = home.run("fsck", "--repair-from", str(original.parent))
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert damaged.read_bytes() == content
    assert home.get(volume, "weights.bin", tmp_path / "got") == content
    assert "all is well" in home.said("fsck")


def test_fsck_needs_no_server(home: Home, volume: str, tmp_path: Path) -> None:
    content = os.urandom(MIB)
    home.put(volume, write(tmp_path / "file.bin", content))
    home.server.stop()
    try:
        assert "all is well" in home.said("fsck")
        for command in (["gc"], ["du"], ["volume", "list"]):
            assert "homeport up" in home.refused(*command)
        with open(home.object_of(content), "r+b") as file:
            file.truncate(MIB - 1)
        found = home.run("fsck")
        assert found.returncode == 1 and blake3.blake3(content).hexdigest()[:16] in found.stdout, found
        mended = home.run("fsck", "--repair-from", str(tmp_path))
        assert mended.returncode == 0, mended.stdout + mended.stderr
    finally:
        home.server.start()
    assert home.get(volume, "file.bin", tmp_path / "got") == content


def test_the_history_survives_a_crash_and_a_data_directory_of_its_own(machine: None, tmp_path: Path) -> None:
    server = Server(tmp_path / "data", tmp_path / "server.log")
    made = homeport("storage", "init", "--size", "2GiB", "--sparse", data_dir=server.data_dir)
    assert made.returncode == 0, made.stdout + made.stderr
    try:
        server.start()
        home = Home(server, Client(CLIENT_VERSIONS[-1], server, tmp_path))
        home.modal("create", "weights")
        content = os.urandom(5 * MIB)
        home.put("weights", write(tmp_path / "weights.bin", content))
        home.said("volume", "tag", "weights", "first")
        server.kill()
        server.start()
        assert home.get("weights", "weights.bin", tmp_path / "got") == content
        assert home.log("weights")[0]["tags"] == ["first"]
        doctor = json.loads(home.run("doctor", "--json").stdout)["checks"]
        states = {check["name"]: check["status"] for check in doctor}
        assert (states["storage"], states["reflinks"]) == ("ok", "ok"), states
        server.stop()
        assert "all is well" in home.said("fsck")
    finally:
        server.kill()
        detached = homeport("storage", "detach", data_dir=server.data_dir)
    assert detached.returncode == 0, detached.stdout + detached.stderr
    assert str(server.data_dir) not in Path("/proc/self/mounts").read_text()


@pytest.mark.once
def test_a_conflict_is_shown_with_the_command_that_undoes_it(client: Client, tmp_path: Path) -> None:
    home = Home(client.server, client)
    name = f"conflict-{os.getpid()}"
    client.run("volume_conflict.py", VOLUME=name)
    log = home.log(name)
    newest = next(version for version in log if version["conflicts"])
    assert newest["function_name"] == "second" and newest["task_id"].startswith("ta-"), newest
    assert [conflict["path"] for conflict in newest["conflicts"]] == ["same.txt"]
    assert newest["conflicts"][0]["lost_by"] == "first"
    assert {path for kind, path in home.diff(name, "0") if kind == "added"} == {
        "same.txt",
        "from-first.txt",
        "from-second.txt",
    }
    assert home.get(name, "same.txt", tmp_path / "got") == b"from-second"

    shown = home.said("volume", "log", name)
    command = next(line.strip() for line in shown.splitlines() if line.strip().startswith("homeport volume"))
    assert f"restore {name} --version {newest['conflicts'][0]['lost_version']} same.txt" in command
    binary = HOMEPORT.parent
    done = subprocess.run(["sh", "-c", command], env={"PATH": f"{binary}:{os.environ['PATH']}"}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert home.get(name, "same.txt", tmp_path / "got") == b"from-first"
    assert home.get(name, "from-second.txt", tmp_path / "got") == b"from-second"
    home.modal("delete", "--yes", name)
