"""Network file systems: directories that containers and the command line share live."""

import hashlib
import os
from pathlib import Path

from harness.client import Client


def test_containers_and_client_see_each_others_files_at_once(client: Client) -> None:
    name = f"shared-{client.version.number.replace('.', '-')}-{os.getpid()}"
    seen = client.run("network_files.py", FILES_NAME=name).results
    assert seen["seen"] == seen["outside"] == "one two"
    assert seen["listed"] == ["from/container.txt"]
    assert seen["inside"] is True
    assert sorted(seen["left"]) == ["from", "from/container.txt"]
    assert seen["owners"] == {"owner": 0, "me": 0}, "files belong to root, as the container sees them"


def test_command_line_puts_lists_gets_and_removes(client: Client, tmp_path: Path) -> None:
    name = f"by-hand-{client.version.number.replace('.', '-')}-{os.getpid()}"
    client.modal("nfs", "create", name)
    refused = client.modal("nfs", "create", name, check=False)
    assert refused.code != 0 and "exists" in refused.flat
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    large = os.urandom(9 << 20)
    (tree / "deep" / "large.bin").write_bytes(large)
    (tree / "small.txt").write_text("small")
    client.modal("nfs", "put", name, str(tree), "/data")
    assert set(client.modal("nfs", "ls", name, "/data").output.split()) >= {"data/deep", "data/small.txt"}
    assert name in client.modal("nfs", "list").output
    got = tmp_path / "got"
    got.mkdir()
    client.modal("nfs", "get", name, "data/**", str(got))
    found = next(got.rglob("large.bin"))
    assert hashlib.sha256(found.read_bytes()).digest() == hashlib.sha256(large).digest()
    refused = client.modal("nfs", "rm", name, "data", check=False)
    assert refused.code != 0
    client.modal("nfs", "rm", "-r", name, "data")
    missing = client.modal("nfs", "ls", name, "data", check=False)
    assert missing.code != 0 and "does not exist" in missing.flat
    if not client.version.deletes_network_files:
        return
    client.modal("nfs", "delete", name, "--yes")
    gone = client.modal("nfs", "ls", name, check=False)
    assert gone.code != 0 and "no network file system" in gone.flat

