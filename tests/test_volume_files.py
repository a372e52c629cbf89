"""Volumes by requests: named, listed, read, written and copied by the real clients, all but once without a container."""

import hashlib
import json
import random
import re
import sqlite3
import time
import urllib.request
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import pytest

from harness.broken_line import broken_line
from harness.client import Client
from harness.matrix import CLIENT_VERSIONS, ClientVersion
from harness.server import Server, homeport
from harness.waiting import wait_for

MIB = 1 << 20
BLOCK = 8 * MIB
names = (f"volume-{number}" for number in range(10_000))


@pytest.fixture(scope="module")
def files_server(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without an image: nothing here starts a container."""
    directory = tmp_path_factory.mktemp("server")
    server = Server(directory / "data", directory / "server.log")
    try:
        yield server.start()
        server.stop()
    finally:
        server.kill()
    server.assert_no_traces()


@pytest.fixture
def plain(version: ClientVersion, files_server: Server, tmp_path: Path) -> Client:
    return Client(version, files_server, tmp_path)


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def api(request: pytest.FixtureRequest, version: ClientVersion) -> int:
    """The version of a Volume's API."""
    if request.param == 2 and not version.has_volume_blocks:
        pytest.skip(f"client {version} knows version 1 only")
    return request.param


@pytest.fixture
def name(version: ClientVersion) -> str:
    return f"{next(names)}-{version.number.replace('.', '-')}"


def steps(client: Client, name: str, api: int, *steps: List[Any], timeout: float = 180, **changes: Optional[str]) -> List[Any]:
    done = client.python("volume_files.py", name, str(api), json.dumps(steps), timeout=timeout, **changes)
    return done.results["steps"]


def all_went_well(results: List[Any]) -> List[Any]:
    failures = [result for result in results if isinstance(result, dict) and "error" in result]
    assert not failures, failures
    return results


def content(seed: object, size: int) -> bytes:
    """Bytes without order. No block of them ends in a zero, which some clients would not send."""
    source = random.Random(str(seed))
    data = bytearray().join(source.randbytes(min(BLOCK, size - at)) for at in range(0, size, BLOCK))
    for end in {*range(BLOCK, size, BLOCK), size} - {0}:
        data[end - 1] |= 1
    return bytes(data)


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def summary(data: bytes) -> Dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


def metric(server: Server, name: str) -> int:
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return int(re.search(rf"^{name} (\d+)$", text, re.MULTILINE).group(1))


def sent_bytes(server: Server) -> int:
    """Bytes of whole blocks that clients sent since the server started."""
    return metric(server, "homeport_upload_block_bytes_total")


def versions(server: Server, name: str) -> int:
    """The number of a Volume's newest version."""
    with sqlite3.connect(f"file:{server.data_dir}/meta.db?mode=ro", uri=True) as database:
        query = "SELECT max(number) FROM volume_versions JOIN volumes ON id = volume_id WHERE name = ?"
        return database.execute(query, [name]).fetchone()[0] or 0


def peak_memory(server: Server) -> int:
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE).group(1)) << 10


# Names


def test_volumes_are_made_found_renamed_and_deleted(plain: Client, name: str) -> None:
    seen = plain.python("volume_names.py", name).results
    newest = plain.version.has_volume_objects

    def is_missing(failure: Dict[str, Any]) -> bool:
        return "NotFoundError" in failure["kinds"] or failure["status"] == "NOT_FOUND"

    def exists(failure: Dict[str, Any]) -> bool:
        return "AlreadyExistsError" in failure["kinds"] or failure["status"] == "ALREADY_EXISTS"

    assert is_missing(seen["missing"]) and f"{name}-missing" in seen["missing"]["message"]
    assert seen["created"] == [] and seen["same"] is True
    assert seen["id"].startswith("vo-")
    assert seen["ephemeral"] == ["program.py"]
    assert is_missing(seen["deleted"]) and is_missing(seen["by_deleted_id"])
    if not newest:
        assert seen["deployed_id"].startswith("vo-")
        assert exists(seen["deployed_twice"])
        assert seen["looked_up"] == seen["id"] and is_missing(seen["lookup_missing"])
    if plain.version.has_volume_rename:
        assert seen["renamed_id"] == seen["id"] and is_missing(seen["old_name"])
    if newest:
        assert exists(seen["objects_twice"]) and is_missing(seen["objects_gone"])
        assert "InvalidError" in seen["other_version"]["kinds"], "it has another version of the API"
        own = f"{name}-objects"
        assert seen["objects_listed"] == [f"{own}-{number}" for number in (4, 3, 2, 1, 0)] + [own], "newest first"
        assert seen["objects_first"] == 3
        assert seen["info"]["name"] == own and abs(seen["info"]["created_at"] - time.time()) < 300
        assert seen["by_id"] == []


# Contents


@pytest.fixture
def sizes(tmp_path: Path) -> Dict[str, bytes]:
    """Files of every size at which something changes, and with zeros in every place."""
    files = {
        str(size): content(size, size)
        for size in (0, 1, 511, 512, 513, 4 * MIB - 1, 4 * MIB, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 7)
    }
    files["zeros"] = bytes(BLOCK + 1000)
    files["one-zero"] = b"\0"
    files["few-zeros"] = b"a" + bytes(400)
    sparse = bytearray(4 * BLOCK + 5)
    sparse[0:3] = sparse[2 * BLOCK : 2 * BLOCK + 3] = b"abc"
    files["sparse"] = bytes(sparse)
    files["zeros-first"] = bytes(BLOCK + 5) + b"end"
    files["same-blocks"] = content("same", BLOCK) * 3 + content("same", BLOCK)[:1000]
    return files


def test_contents_of_all_sizes_come_back_as_they_were(
    plain: Client, name: str, api: int, sizes: Dict[str, bytes], tmp_path: Path
) -> None:
    local = tmp_path / "local"
    for file, data in sizes.items():
        write(local / file, data)
    paths = list(sizes)
    # That version alone takes a block apart into lines, and none may be long.
    short_lines = [path for path in paths if all(len(line) < 128 << 10 for line in sizes[path].split(b"\n"))]
    whole = short_lines if api == 2 and plain.version.splits_lines else paths
    assert len(whole) >= 11
    results = all_went_well(steps(
        plain, name, api,
        ["put_directory", str(local), "/"],
        ["list", "/"],
        *(["read", path] for path in paths),
        *(["read_into", "/" + path] for path in whole),
    ))
    listed = {entry["path"]: entry for entry in results[1]}
    assert {path: entry["size"] for path, entry in listed.items()} == {path: len(data) for path, data in sizes.items()}
    assert {entry["type"] for entry in listed.values()} == {"FILE"}
    assert all(abs(entry["mtime"] - time.time()) < 600 for entry in listed.values())
    expected = [summary(sizes[path]) for path in paths]
    assert results[2 : 2 + len(paths)] == expected
    assert results[2 + len(paths) :] == [summary(sizes[path]) for path in whole]
    assert versions(plain.server, name) == 1, "one batch is one version"


def test_files_directories_and_file_objects_are_put_in_one_batch_each(
    plain: Client, name: str, api: int, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    write(tree / "a.txt", b"a")
    write(tree / "deep" / "er" / "b.bin", content("b", 5 * MIB))
    write(tree / "deep" / "Grüße 你好", b"name")
    (tree / "empty").mkdir()
    results = all_went_well(steps(
        plain, name, api,
        ["put_directory", str(tree), "/up"],
        ["put_directory", str(tree), "/flat", False, False],
        ["put_open_file", str(tree / "deep" / "er" / "b.bin"), "opened/b.bin"],
        ["put_text", {"one": "1", "/two/three": "3", "nothing": ""}],
        ["iterate", "/"],
        ["list", "/up"],
        ["list", "up/deep", True],
        ["list", "up/a.txt"],
        ["read", "up/deep/Grüße 你好"],
        ["read", "opened/b.bin"],
        ["read", "nothing"],
    ))
    everything = [(entry["path"], entry["type"]) for entry in results[4]]
    assert sorted(everything) == [
        ("flat", "DIRECTORY"), ("flat/a.txt", "FILE"),
        ("nothing", "FILE"), ("one", "FILE"),
        ("opened", "DIRECTORY"), ("opened/b.bin", "FILE"),
        ("two", "DIRECTORY"), ("two/three", "FILE"),
        ("up", "DIRECTORY"), ("up/a.txt", "FILE"), ("up/deep", "DIRECTORY"),
        ("up/deep/Grüße 你好", "FILE"), ("up/deep/er", "DIRECTORY"), ("up/deep/er/b.bin", "FILE"),
    ]
    assert [entry["path"] for entry in results[5]] == ["up/a.txt", "up/deep"]
    assert sorted(entry["path"] for entry in results[6]) == ["up/deep/Grüße 你好", "up/deep/er", "up/deep/er/b.bin"]
    assert [(entry["path"], entry["size"]) for entry in results[7]] == [("up/a.txt", 1)]
    assert results[8] == summary(b"name")
    assert results[9] == summary(content("b", 5 * MIB))
    assert results[10] == summary(b"")
    assert versions(plain.server, name) == 4


def test_an_existing_file_is_replaced_only_by_force_and_a_directory_never(
    plain: Client, name: str, api: int
) -> None:
    results = steps(
        plain, name, api,
        ["put_text", {"dir/file": "old", "other": "x"}],
        ["put_text", {"new": "new", "dir/file": "newer"}],
        ["list", "/"],
        ["read", "dir/file"],
        ["put_text", {"new": "new", "dir/file": "newer"}, True],
        ["read", "dir/file"],
        ["put_text", {"dir": "a file"}, True],
        ["put_text", {"dir": "a file"}],
        ["put_text", {"dir/file/below": "a file"}, True],
        ["read", "dir/file"],
    )
    assert "FileExistsError" in results[1]["kinds"] and "dir/file" in results[1]["message"]
    assert [entry["path"] for entry in results[2]] == ["dir", "other"], "a refused batch leaves nothing"
    assert results[3] == summary(b"old") and results[5] == summary(b"newer")
    for refused in results[6:8]:
        assert "FileExistsError" in refused["kinds"] and "directory" in refused["message"]
    assert "not a directory" in results[8]["message"]
    assert results[9] == summary(b"newer")


def test_what_is_not_there_or_not_allowed_is_said(plain: Client, name: str, api: int) -> None:
    put, *results = steps(
        plain, name, api,
        ["put_text", {"dir/file": "x", "top": "y"}],
        ["list", "missing"],
        ["list", "dir/file/below"],
        ["read", "missing"],
        ["read_into", "dir/missing"],
        ["read", "dir"],
        ["remove", "missing"],
        ["remove", "dir"],
        ["list", "../outside"],
        ["read", "dir/../../file"],
        ["remove", ".."],
        ["put_text", {"a/../../b": "x"}],
        ["commit"],
        ["reload"],
        ["list", "/"],
    )
    assert put is None
    (no_list, no_below, no_read, no_into, is_directory, no_remove, not_recursive, *climbing, commit, reload, listed) = results
    newest = plain.version.has_volume_objects
    for missing in (no_list, no_below):
        assert missing["status"] == "NOT_FOUND" or "NotFoundError" in missing["kinds"], missing
    for missing in (no_read, no_into):
        assert "FileNotFoundError" in missing["kinds"] and "missing" in missing["message"]
    assert "FileNotFoundError" in no_remove["kinds"] if newest else no_remove["status"] == "NOT_FOUND"
    for invalid in (is_directory, not_recursive, *climbing):
        assert invalid["status"] == "INVALID_ARGUMENT" or "InvalidError" in invalid["kinds"], invalid
    assert "is a directory" in not_recursive["message"] and ".." in climbing[0]["message"]
    for only_inside in (commit, reload):
        assert "RuntimeError" in only_inside["kinds"] and "container" in only_inside["message"]
    assert [entry["path"] for entry in listed] == ["dir", "top"]


def test_files_are_removed_and_copied(plain: Client, name: str, api: int, tmp_path: Path) -> None:
    large = content("copied", 9 * MIB)
    results = steps(
        plain, name, api,
        ["put_text", {"a/one": "1", "a/two": "2", "a/deep/three": "3", "b/one": "other", "top": "t"}],
        ["put", str(write(tmp_path / "large", large)), "large"],
        ["copy", ["top"], "copy-of-top"],
        ["copy", ["a/one", "/a/two"], "b"],
        ["copy", ["large"], "new/place/large"],
        ["copy", ["a/one", "a/two"], "top"],
        ["copy", ["a"], "c"],
        ["copy", ["missing"], "d"],
        ["copy", ["top"], "top"],
        ["iterate", "/"],
        ["read", "b/one"],
        ["read", "new/place/large"],
        ["remove", "/a/one"],
        ["remove", "a/deep", True],
        ["iterate", "a"],
        ["remove", "/", True],
        ["list", "/"],
    )
    all_went_well(results[:5])
    several_onto_file, directory, missing, same = results[5:9]
    assert "not a directory" in several_onto_file["message"]
    assert "directory" in directory["message"] and "missing" in missing["message"] and "same file" in same["message"]
    assert sorted(entry["path"] for entry in results[9] if entry["type"] == "FILE") == [
        "a/deep/three", "a/one", "a/two", "b/one", "b/two", "copy-of-top", "large", "new/place/large", "top"
    ]
    assert results[10] == summary(b"1"), "a copy replaces"
    assert results[11] == summary(large)
    assert [entry["path"] for entry in results[14]] == ["a/two"]
    assert results[16] == []


@pytest.mark.only("has_volume_objects")
def test_directories_are_copied_where_the_client_can_ask_for_it(plain: Client, name: str) -> None:
    results = all_went_well(steps(
        plain, name, 2,
        ["put_text", {"a/one": "1", "a/deep/two": "2", "there/x": "x"}],
        ["copy", ["a"], "new", True],
        ["copy", ["a", "there/x"], "there", True],
        ["iterate", "/"],
    )[:2]) + steps(plain, name, 2, ["iterate", "/new"], ["copy", ["a"], "a/deep", True], ["copy", ["a"], "there", True], ["iterate", "/there"])
    assert sorted(entry["path"] for entry in results[2]) == ["new/deep", "new/deep/two", "new/one"]
    assert "itself" in results[3]["message"]
    assert sorted(entry["path"] for entry in results[5] if entry["type"] == "FILE") == [
        "there/a/deep/two", "there/a/one", "there/x"
    ]


# Many and large


def test_a_directory_of_many_small_files_is_one_version(plain: Client, name: str, api: int, tmp_path: Path) -> None:
    tree = tmp_path / "many"
    for number in range(2000):
        write(tree / f"{number % 7}" / f"file-{number}.txt", content(number, number % 1500))
    put, counted, one = steps(
        plain, name, api, ["put_directory", str(tree), "/many"], ["count", "many"], ["read", "many/3/file-1494.txt"],
        timeout=400,
    )
    assert put is None, put
    assert counted["number"] == 2007
    assert one == summary(content(1494, 1494))
    assert versions(plain.server, name) == 1


@pytest.mark.only("has_volume_objects")
def test_a_listing_of_twenty_thousand_files_comes_in_pages(plain: Client, name: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(20_000):
        (tree / f"{number:05}").touch()
    put, counted, pages, few = steps(
        plain, name, 2,
        ["put_directory", str(tree), "/d"], ["count", "d", False], ["pages", "/"], ["pages", "/", 2500],
        timeout=400,
    )
    assert put is None, put
    expected = hashlib.sha256(b"".join(f"d/{number:05}\0".encode() for number in range(20_000)))
    assert counted == {"number": 20_000, "names": expected.hexdigest()}
    assert sum(pages) == 20_001 and len(pages) > 10 and max(pages) <= 1000
    assert sum(few) == 2500
    for version in CLIENT_VERSIONS:
        older = Client(version, plain.server, tmp_path)
        assert steps(older, name, 2 if version.has_volume_blocks else 1, ["count", "/d", False])[0] == counted


def test_a_large_file_takes_little_memory_of_the_server(plain: Client, name: str, api: int, tmp_path: Path) -> None:
    data = content("large", 300 * MIB + 12_345)
    local = write(tmp_path / "large", data)
    before = peak_memory(plain.server)
    results = all_went_well(steps(
        plain, name, api, ["put", str(local), "large"], ["read", "large"], ["read_into", "large"], timeout=400
    ))
    assert results[1] == results[2] == summary(data)
    grown = peak_memory(plain.server) - before
    assert grown < 200 * MIB, f"the server's memory grew by {grown >> 20} MiB"


# What is not sent again


@pytest.mark.only("has_volume_blocks")
def test_what_the_server_has_is_not_sent_again(plain: Client, name: str, tmp_path: Path) -> None:
    data = bytearray(content(name, 5 * BLOCK + 1000))
    local = write(tmp_path / "file", data)
    sent = [sent_bytes(plain.server)]

    def put(volume: str, remote: str, force: bool = False) -> int:
        result, found = steps(plain, volume, 2, ["put", str(local), remote, force], ["read", remote])
        assert result is None and found == summary(local.read_bytes()), (result, found)
        sent.append(sent_bytes(plain.server))
        return sent[-1] - sent[-2]

    assert put(name, "file") == len(data)
    assert put(name, "file", True) == 0
    assert put(name, "elsewhere/file") == 0
    assert put(f"{name}-other", "file") == 0
    # One block changes, another is added at the front of which the rest follows.
    data[2 * BLOCK + 5] ^= 1
    write(local, bytes(data))
    assert put(name, "changed") == BLOCK
    write(local, content(f"in front of {name}", BLOCK) + bytes(data[:BLOCK]) * 2)
    assert put(name, "moved") == BLOCK


@pytest.mark.only("has_volume_blocks")
def test_a_file_that_is_replaced_gives_the_blocks_that_stay(plain: Client, own_server: Server, tmp_path: Path) -> None:
    """Also when nothing is known of its blocks, as when a container wrote it."""
    own_server.start()
    client = Client(plain.version, own_server, tmp_path)
    data = bytearray(content("replaced", 6 * BLOCK))
    data[4 * BLOCK - 100 : 4 * BLOCK] = bytes(100)
    local = write(tmp_path / "file", data)
    assert steps(client, "v", 2, ["put", str(local), "file"]) == [None]
    own_server.stop()
    with sqlite3.connect(own_server.data_dir / "meta.db") as database:
        assert database.execute("DELETE FROM blocks").rowcount == 7
    own_server.start()
    data[BLOCK] ^= 1
    write(local, bytes(data) + b"longer")
    put, read = steps(client, "v", 2, ["put", str(local), "file", True], ["read", "file"])
    assert put is None and read == summary(bytes(data) + b"longer")
    assert sent_bytes(own_server) == BLOCK + len(b"longer")
    own_server.stop()


@pytest.mark.only("has_volume_blocks")
@pytest.mark.parametrize("who", ["client", "server", "both"])
def test_an_upload_that_breaks_goes_on_where_it_was(
    version: ClientVersion, own_server: Server, tmp_path: Path, who: str
) -> None:
    size = 400 * MIB + 99
    data = content("broken", size)
    local = write(tmp_path / "file", data)
    own_server.start()
    client = Client(version, own_server, tmp_path)
    running = client.begin("volume_files.py", "v", "2", f'[["put", "{local}", "file"]]')
    try:
        wait_for("blocks on the server", lambda: sent_bytes(own_server) > 2 * BLOCK, 60, pause=0.002)
        arrived = 0
        if who != "server":
            running.end()
        if who != "client":
            counted = sent_bytes(own_server)
            own_server.kill()
            running.end()
            own_server.start()
            arrived = on_disk(own_server)
            assert counted <= arrived, "what was acknowledged is there"
        assert arrived < size, "the upload was faster than this test: it shows nothing"
    finally:
        running.end()
    put, read = steps(client, "v", 2, ["put", str(local), "file"], ["read", "file"])
    assert put is None and read == summary(data)
    # By all clients since the server started: a block that is there is not sent again.
    sent = sent_bytes(own_server)
    assert sent == size - arrived, f"{sent} bytes were sent of {size - arrived} that were missing"
    assert not list((own_server.data_dir / "blobs" / "blocks").iterdir()), "an upload that is done leaves nothing"
    own_server.stop()


def test_what_was_collected_is_asked_for_again(version: ClientVersion, own_server: Server, tmp_path: Path) -> None:
    own_server.start()
    client = Client(version, own_server, tmp_path)
    data = content("collected", 2 * BLOCK + 5)
    local = write(tmp_path / "file", data)
    for api in (1, 2) if version.has_volume_blocks else (1,):
        assert steps(client, "first", api, ["put", str(local), "file"]) == [None]
        client.modal("volume", "delete", "--yes", "first")
        collected = homeport("gc", "--older-than", "0s", data_dir=own_server.data_dir)
        assert collected.returncode == 0, collected.stdout + collected.stderr
        objects = [path for path in (own_server.data_dir / "store" / "objects").rglob("*") if path.is_file()]
        assert not objects, "nothing refers to what was uploaded"
        put, read = steps(client, "second", api, ["put", str(local), "file"], ["read", "file"])
        assert put is None and read == summary(data)
        client.modal("volume", "delete", "--yes", "second")
    own_server.stop()


def on_disk(server: Server) -> int:
    """The bytes of the blocks that the journal of the only upload names."""
    (journal,) = (server.data_dir / "blobs" / "blocks").glob("*.journal")
    records = journal.read_bytes()[16:]
    lengths = {records[at : at + 8]: records[at + 8 : at + 16] for at in range(0, len(records) - 47, 48)}
    return sum(int.from_bytes(length, "little") for length in lengths.values())


@pytest.mark.once
def test_a_request_is_known_by_its_key(plain: Client, own_server: Server, tmp_path: Path) -> None:
    own_server.start()
    client = Client(plain.version, own_server, tmp_path)
    put, first, again, other = steps(
        client, "v", 2,
        ["put_text", {"a": "1", "b": "2"}],
        ["remove_by_key", "a", "one"], ["remove_by_key", "a", "one"], ["remove_by_key", "a", "two"],
    )
    assert put is first is again is None
    assert "NotFoundError" in other["kinds"]
    own_server.kill()
    own_server.start()
    assert steps(client, "v", 2, ["remove_by_key", "a", "one"]) == [None], "also by the next run of the server"
    assert versions(own_server, "v") == 2
    own_server.stop()


@pytest.mark.once  # older clients repeat only some of their requests
@pytest.mark.parametrize("first", range(2, 9))
def test_a_repeated_request_changes_a_volume_once(plain: Client, name: str, first: int) -> None:
    with broken_line(plain.server.port, [first, first + 1, 4, 2]) as line:
        results = steps(
            plain, name, 2,
            ["put_text", {"a": "1" * 1000, "b": "2" * 1000}],
            ["put_text", {"c": ""}],
            ["remove", "a"],
            ["copy", ["b"], "d"],
            ["remove", "c"],
            ["copy", ["b"], "e"],
            ["remove", "b"],
            MODAL_SERVER_URL=f"http://127.0.0.1:{line.port}",
        )
        assert line.cuts >= 1, "the line never broke: the test shows nothing"
    all_went_well(results)
    (listed,) = steps(plain, name, 2, ["list", "/"])
    assert [entry["path"] for entry in listed] == ["d", "e"]
    assert versions(plain.server, name) == 7


# The command line


def test_the_command_line_does_all_of_it(plain: Client, name: str, api: int, tmp_path: Path) -> None:
    modal = plain.modal
    kind = ["--version", "2"] if api == 2 else []
    assert f"Created Volume '{name}'" in modal("volume", "create", name, *kind).flat
    assert modal("volume", "create", name, *kind, check=False).code != 0
    assert name in modal("volume", "list", "--json").output

    local = tmp_path / "local"
    large = content("cli", 9 * MIB)
    write(local / "deep" / "large.bin", large)
    write(local / "small.txt", b"small")
    modal("volume", "put", name, str(local), "/data")
    modal("volume", "put", name, str(local / "small.txt"))
    refused = modal("volume", "put", name, str(local / "small.txt"), check=False)
    assert refused.code != 0 and "exists" in refused.flat
    write(local / "small.txt", b"smaller")
    modal("volume", "put", "--force", name, str(local / "small.txt"), "/")

    assert modal("volume", "ls", name).output.split() == ["data", "small.txt"]
    assert modal("volume", "ls", name, "data/").output.split() == ["data/deep", "data/small.txt"]
    missing = modal("volume", "ls", name, "nowhere", check=False)
    assert missing.code != 0 and "nowhere" in missing.flat

    assert "smaller" in modal("volume", "get", name, "small.txt", "-").output
    got = tmp_path / "got"
    got.mkdir()
    modal("volume", "get", name, "/data", str(got))
    assert (got / "data" / "deep" / "large.bin").read_bytes() == large
    assert (got / "data" / "small.txt").read_bytes() == b"small"
    again = modal("volume", "get", name, "/data", str(got), check=False)
    assert again.code != 0 and "already exists" in again.flat
    everything = tmp_path / "everything"
    everything.mkdir()
    modal("volume", "get", name, "/", str(everything))
    assert (everything / "data" / "deep" / "large.bin").read_bytes() == large

    modal("volume", "cp", name, "small.txt", "data")
    modal("volume", "get", "--force", name, "data/small.txt", str(got / "data"))
    assert (got / "data" / "small.txt").read_bytes() == b"smaller"
    refused = modal("volume", "rm", name, "data", check=False)
    assert refused.code != 0 and "directory" in refused.flat
    modal("volume", "rm", "-r", name, "data")
    missing = modal("volume", "rm", name, "data", check=False)
    assert missing.code != 0
    assert modal("volume", "ls", name).output.split() == ["small.txt"]

    if plain.version.has_volume_rename:
        modal("volume", "rename", "--yes", name, f"{name}-new")
        name = f"{name}-new"
        assert modal("volume", "ls", name).output.split() == ["small.txt"]
    modal("volume", "delete", "--yes", name)
    gone = modal("volume", "ls", name, check=False)
    assert gone.code != 0 and name in gone.flat


def test_wildcards_within_a_path_choose_what_is_downloaded(plain: Client, name: str, tmp_path: Path) -> None:
    texts = {"runs/1/best.pt": "1", "runs/2/best.pt": "2", "runs/2/last.pt": "3"}
    assert steps(plain, name, 1, ["put_text", texts]) == [None]
    plain.modal("volume", "get", name, "runs/*/best.pt", str(tmp_path))
    assert {path.read_text() for path in tmp_path.rglob("best.pt")} == {"1", "2"}
    assert not list(tmp_path.rglob("last.pt"))


def test_a_container_makes_the_same_requests(client: Client, name: str, api: int) -> None:
    seen = client.run("volume_files_inside.py", VOLUME=name, VOLUME_API=str(api)).results
    asked, mounted = seen["asked"], seen["mounted"]
    assert asked["listed"] == ["inside/copy", "inside/large"] and asked["same"] is True
    assert mounted["large"] == {"mode": 0o644, "owner": 0, "sha256": asked["sha256"]}
    assert mounted["copy"] == {"mode": 0o751, "owner": 0, "sha256": hashlib.sha256(b"small").hexdigest()}
