"""Volumes in containers: what one container sees of another's changes, and that none of them is lost."""

import uuid
from typing import Iterator

import pytest

from harness.client import Client
from harness.paths import EXAMPLES
from harness.server import Server, homeport
from harness.waiting import wait_for

BUILD_SECONDS = 900
FLAGS = ["--gpu-fallback", "cpu"]


@pytest.fixture
def volume(client: Client) -> Iterator[str]:
    """The name of a Volume that isn't there yet, and is gone after the test."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    yield name
    client.modal("volume", "delete", name, "--yes", check=False)


def play(client: Client, scenario: str, volume: str, *arguments: str, program: str = "volumes.py") -> dict:
    return client.run(f"{program}::{scenario}", *arguments, timeout=300, VOLUME=volume).results


def test_the_guides_program_trains_serves_and_reloads(client: Client) -> None:
    client.modal("volume", "delete", "model-weights-vol", "--yes", check=False)
    try:
        run = client.run(str(EXAMPLES / "weights_on_volume.py"), timeout=BUILD_SECONDS)
    finally:
        client.modal("volume", "delete", "model-weights-vol", "--yes", check=False)
    figures = [float(line.rsplit(": ", 1)[1]) for line in run.output.splitlines() if ": 0.9" in line]
    first, each_call, start, second, before, after = figures
    assert first == each_call == start == before, run.output
    assert second == after and second > first, run.output


def test_a_container_sees_the_version_that_it_started_with_until_it_reloads(client: Client, volume: str) -> None:
    seen = play(client, "versions", volume)
    assert seen["empty"] == {}
    assert seen["started before"] == {}, "a container saw a version that was committed after its start"
    assert seen["started after"] == {"a": "first"}
    assert seen["reloaded"] == {"a": "first"}
    assert seen["reload with open file"] is None, seen
    assert seen["open file"] == seen["mapping"] == seen["working directory"] == "first", seen
    assert seen["by path"] == "second"


def test_a_file_that_is_open_for_writing_is_committed_as_far_as_it_is(client: Client, volume: str) -> None:
    seen = play(client, "open_for_writing", volume)
    assert seen["first"] == "first ", seen
    assert seen["second"] == "first second ", seen
    assert seen["refused"] is not None, "a reload took the file from under its writer"
    assert "RuntimeError" in seen["refused"] and "/vol/log" in seen["refused"], seen["refused"]
    assert "python" in seen["refused"], f"the process is not named: {seen['refused']}"
    assert seen["reloaded"] is None, seen["reloaded"]
    assert seen["all"] == {"log": "first second third", "other": "x"}


def test_changes_are_committed_in_the_background(client: Client, volume: str) -> None:
    seen = play(client, "background", volume)
    assert seen["text"] == "written"
    assert seen["seconds"] < 20, seen


def test_what_a_container_wrote_is_committed_however_it_ends(client: Client, volume: str) -> None:
    seen = play(client, "deaths", volume)
    for way, result in seen.items():
        assert result["text"] == f"before the {way}", f"{way}: {result}"
        assert result["error"], f"{way}: the call did not fail"
    for way in ["os._exit", "kill", "open file", "timeout", "out of memory"]:
        assert seen[way]["seconds"] < 15, f"{way} was not committed at the end of its container: {seen[way]}"


def test_concurrent_commits_are_merged_and_the_last_one_wins(client: Client, volume: str, server: Server) -> None:
    seen = play(client, "conflicts", volume)
    merged = {"of one": "1", "of two": "2", "both": "from two"}
    assert seen["merged"] == seen["one"] == seen["two"] == merged
    assert seen["removed"] == {"of two": "2 again", "both": "from two"}
    log = homeport("volume", "log", volume, data_dir=server.data_dir)
    assert log.returncode == 0, log.stderr
    assert "both was also written in version 2" in log.stdout, log.stdout
    restored = homeport("volume", "restore", volume, "--version", "2", "both", data_dir=server.data_dir)
    assert restored.returncode == 0, restored.stderr
    files = play(client, "look", volume)["files"]
    assert files == {"of two": "2 again", "both": "from one"}


def test_no_open_fails_while_a_volume_is_reloaded_again_and_again(client: Client, volume: str) -> None:
    seen = play(client, "storm", volume)
    assert seen["reader"]["errors"] == [], seen["reader"]["errors"][:5]
    assert seen["reader"]["reads"] > 1000, seen
    assert len(seen["reader"]["texts"]) > 10, "the reader saw hardly any version"
    assert all(len(text) == len("text 0000") for text in seen["reader"]["texts"]), "a file was seen half written"
    assert seen["last"] == "text 0199"


def test_every_kind_of_file_comes_back_as_it_was(client: Client, volume: str) -> None:
    seen = play(client, "odd_files", volume)
    assert seen["made"] == seen["kept"] == seen["committed"]
    made = seen["made"]
    assert made["renamed"] == "in a renamed directory"
    assert made["same inode"] and made["links"] == 2 and made["symbolic"] == "linked"
    assert made["modes"] == ["0o104751", 1000, 1001, 1_234_567_890_123_456_789]
    assert made["attribute"] == b"odd\0value".hex() and made["pipe"]
    assert made["sparse"] == [64 << 20, True] and made["island"] == "island"
    assert made["long name"] == "a long name that is no text"
    assert made["direct"] == [4096, 4096] and made["mapped"] == [8192, 200]
    assert made["one device"]
    assert seen["failures"] == []
    assert 0 < seen["space"]["free"] <= seen["space"]["bytes"]


def test_sync_of_the_mount_point_commits(client: Client, volume: str) -> None:
    seen = play(client, "synced", volume)
    assert seen == {"code": 0, "text": "at once"}


def test_a_volume_can_be_anywhere(client: Client, volume: str) -> None:
    seen = play(client, "main", volume, program="volume_places.py")
    assert seen["over"] == [], "a Volume showed what the image has at its place"
    assert seen["new"] == ["mine"]
    assert seen["without"] == {"image": True, "mine": False}, "a Volume reached the image below it"


def test_one_volume_at_two_places_is_one(client: Client, volume: str) -> None:
    if client.version.number == "1.6.4":
        pytest.skip("this client refuses it")
    assert play(client, "at_two_places", volume, program="volume_places.py") == {"write": "written", "there": ["both"]}


def test_a_place_can_be_read_only_or_one_directory(client: Client, volume: str) -> None:
    if client.version.number != "1.6.4":
        pytest.skip("this client has no mount options")
    seen = play(client, "with_options", volume, program="volume_places.py")
    assert seen["only reading"] == {"read": ["mine"], "write": "EROFS"}
    assert seen["one directory"] == {"write": "written", "read": ["in part"]}
    assert seen["all"] == ["mine", "part"]


def test_two_volumes_in_one_container_stay_apart(client: Client, volume: str) -> None:
    try:
        seen = play(client, "two_volumes", volume, program="volume_places.py")
    finally:
        client.modal("volume", "delete", f"{volume}-second", "--yes", check=False)
    nested = {"write": ["written", "written"], "outer": ["within", "x"], "inner": ["y"]}
    assert seen == {"nested": nested, "apart": {"first": ["within", "x"], "second": ["y"]}}


def test_a_volume_of_an_image_build_is_no_part_of_the_image(client: Client, volume: str) -> None:
    seen = client.run("volume_in_build.py", timeout=300, VOLUME=volume).results
    assert seen == {"image": "made in the build", "volume": "kept on the Volume", "below": False}


@pytest.mark.once
def test_every_commit_outlives_a_crash_of_the_server(client: Client, volume: str, server: Server) -> None:
    for name in ["a", "b", "c"]:
        running = client.begin_run("volumes.py::count", "--name", name, VOLUME=volume)
        try:
            running.wait_for_line("committed 20", 120)
            server.kill()
        finally:
            running.end()
            if server.process is None:
                server.start(*FLAGS)
        told = running.output.count("committed ")
        found = {path: text for path, text in play(client, "look", volume)["files"].items() if path.startswith(name)}
        assert len(found) >= told > 20, f"{told} were committed, {len(found)} are there"
        assert found == {f"{name}/{number}": f"number {number}" for number in range(len(found))}


@pytest.mark.parametrize("end", ["kill", "stop", "client"])
def test_nothing_is_lost_when_the_server_or_the_client_ends(client: Client, volume: str, server: Server, end: str) -> None:
    running = client.begin_run("volumes.py::leave_work", "--name", end, VOLUME=volume)
    try:
        running.wait_for_line("work is left", 120)
        if end == "client":
            running.end()
        else:
            getattr(server, end)()
    finally:
        running.end()
        if server.process is None:
            server.start(*FLAGS)
    # Without its client a container goes on for a while, and commits in the background.
    patience = 30 if end == "client" else 5
    expected = {f"{end} committed": "committed", f"{end} loose": "not committed"}
    wait_for("complete Volume", lambda: play(client, "look", volume)["files"] == expected, patience)
