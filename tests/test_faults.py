"""What goes wrong: each fault reaches who can do something about it, and nobody else."""

import re
import signal
import uuid
from pathlib import Path
from typing import Iterator

import pytest

from harness.client import Client
from harness.server import Server
from harness.waiting import wait_for

MIB = 1 << 20
FLAGS = ("--gpu-fallback", "cpu")


def memory(server: Server) -> int:
    """The memory that the server has now, in bytes."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    assert found, status
    return int(found[1]) << 10


def test_values_that_do_not_travel_are_named(client: Client) -> None:
    results = client.run("faults.py::strangers").results
    for what in ("result", "argument"):
        assert results[what][0] != "returned" and "pickle" in results[what][-1].lower(), results[what]
    for what in ("stranger", "raised"):
        assert results[what][0] in ("ExecutionError", "DeserializationError"), results[what]
        assert "only_there" in results[what][-1], results[what]
    assert results["after"] == "still here"


@pytest.mark.once
def test_a_container_that_forks_without_end_harms_only_itself(client: Client, server: Server) -> None:
    results = client.run("faults.py::bomb").results
    assert results["beside"] == results["after"] == "still here"
    assert "returned" in results["bomb"] or "memory" in results["bomb"][-1], results["bomb"]
    wait_for("end of the forked", lambda: len(server.containers()) < 50, 30)


@pytest.mark.once
def test_a_flood_of_output_slows_nobody_and_fills_no_memory(client: Client, server: Server) -> None:
    before = memory(server)
    results = client.python("faults.py").results
    assert results["written"] > 100 * MIB, results
    assert results["took"][5] < 0.5, "calls beside the flood take long"
    assert memory(server) - before < 200 * MIB


@pytest.mark.once
def test_a_container_that_never_connects_is_given_up(client: Client) -> None:
    text = client.run("never_connects.py").results["text"]
    assert "startup timeout of 4 s" in text, text


def test_a_function_that_always_fails_fails_each_of_many_inputs(client: Client) -> None:
    run = client.run("faults.py::failures", "--count", "300")
    assert run.results == {"count": 300, "right": True, "after": "still here"}


@pytest.mark.once
def test_a_long_map_needs_no_more_memory_of_the_server_than_a_short_one(client: Client, server: Server) -> None:
    client.run("faults.py::many", "--count", "600")
    before = memory(server)
    assert client.run("faults.py::many", "--count", "3000").results["total"] == 3000
    assert memory(server) - before < 40 * MIB


@pytest.mark.once
def test_names_and_numbers_that_make_no_sense_are_refused_with_the_reason(client: Client) -> None:
    results = client.python("bad_numbers.py").results
    assert "4000000000" in results["timeout"] and "timeout" in results["timeout"]
    for kind in ("negative", "memory", "concurrent", "name", "slash"):
        assert "Error" in results[kind], results
    assert "InvalidError" in results["slash"] and "'/'" in results["slash"]


@pytest.fixture
def survivors(client: Client, server: Server) -> Iterator[Client]:
    """A client with a deployment of its own; the server runs again afterwards, whatever happened."""
    name = f"survivors-{uuid.uuid4().hex[:8]}"
    client.defaults["DEPLOYMENT"] = name
    client.modal("deploy", "survivors.py")
    try:
        yield client
    finally:
        if server.process is None:
            server.start(*FLAGS)
        client.app_command("stop", name, by_name=True)


def test_spawned_calls_survive_the_death_of_the_server(survivors: Client, server: Server) -> None:
    run = uuid.uuid4().hex
    calls = survivors.python("survivors.py", "spawn", run).results["calls"]
    server.kill()
    server.start(*FLAGS)
    pairs = [f"{name}={call}" for name, call in calls.items()]
    results = survivors.python("survivors.py", "read", run, *pairs).results
    for name in ("over", "running", "waiting"):
        assert results[name] == ["returned", f"{run}-{name}"], results
    assert results["over_notes"] == ["began", "ended"], "a call that was over ran again"
    assert results["waiting_notes"] == ["began", "ended"], "a call that waited ran more than once"
    assert results["running_notes"].count("ended") == 1, results
    assert "RemoteError" in results["cancelled"] and results["cancelled_notes"] == [], "a cancelled call ran"


@pytest.mark.once
def test_who_waits_in_a_map_hears_of_the_death_of_the_server(survivors: Client, server: Server) -> None:
    running = survivors.begin("survivors.py", "count_to", "1000000")
    try:
        running.wait_for_line("some", 60)
        server.kill()
        server.start(*FLAGS)
        ended = running.wait(90)
        assert ended.code != 0 and "Error" in ended.output, ended
    finally:
        running.end()
    assert survivors.python("survivors.py", "count_to", "400").results["all"] == 400


@pytest.mark.once
def test_a_client_that_is_killed_in_its_map_disturbs_nobody(survivors: Client) -> None:
    running = survivors.begin("survivors.py", "count_to", "1000000")
    try:
        running.wait_for_line("some", 60)
        running.signal(signal.SIGKILL)
        running.wait(10)
    finally:
        running.end()
    assert survivors.python("survivors.py", "count_to", "400").results["all"] == 400


@pytest.mark.once
def test_a_server_that_dies_during_a_deployment_has_the_old_version_or_the_new_one(
    client: Client, server: Server
) -> None:
    name = f"dying-{uuid.uuid4().hex[:8]}"
    look = f"import modal; print('SAYS', modal.Function.from_name('{name}', 'edition').remote(1))"
    client.modal("deploy", "deployed.py", DEPLOYMENT=name, EDITION="one")
    running = client.begin("-m", "modal", "deploy", "deployed.py", DEPLOYMENT=name, EDITION="two")
    try:
        running.wait_for_line("Creat", 60)
        server.kill()
        running.signal(signal.SIGKILL)
        running.wait(10)
    finally:
        running.end()
        if server.process is None:
            server.start(*FLAGS)
    said = client.python("-c", look).output
    assert "['one', 1]" in said or "['two', 1]" in said, said
    client.modal("deploy", "deployed.py", DEPLOYMENT=name, EDITION="three")
    assert "['three', 1]" in client.python("-c", look).output
    client.app_command("stop", name, by_name=True)


@pytest.mark.once
def test_results_are_kept_for_their_time_and_then_said_to_have_expired(survivors: Client, server: Server) -> None:
    found = survivors.python("survivors.py", "spawn_one", uuid.uuid4().hex).results
    server.stop()
    server.start(*FLAGS, "--keep-results", "1s")
    try:
        def expired() -> bool:
            outcome = survivors.python("survivors.py", "read_one", found["call"], "0").results["outcome"]
            return outcome[0] == "OutputExpiredError"

        wait_for("end of the results", expired, 60, pause=2)
        # Also for who would wait for ever.
        results = survivors.python("survivors.py", "read_one", found["call"], "none").results
        assert results["outcome"][0] == "OutputExpiredError" and results["seconds"] < 10
    finally:
        server.stop()
        server.start(*FLAGS)
