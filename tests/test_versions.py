"""Versions of a deployed app: replaced as a whole, drained, listed, brought back."""

import json
import re

import pytest

from harness.client import Client
from harness.waiting import wait_for


def deploy(client: Client, name: str, edition: str, check: bool = True, **environment: str):
    return client.modal("deploy", "versions.py", check=check, DEPLOYMENT=name, EDITION=edition, **environment)


def ask(client: Client, name: str) -> dict:
    return client.python("editions.py", name, "ask").results


def named(client: Client, kind: str) -> str:
    return f"{kind}-{client.version.number.replace('.', '-')}"


def rows(run) -> list:
    return json.loads(run.output[run.output.index("[") :])


def test_a_failed_deployment_leaves_the_old_version_in_place(client: Client) -> None:
    name = named(client, "whole")
    deploy(client, name, "first")
    failed = deploy(client, name, "second", check=False, BROKEN="1")
    assert failed.code != 0 and "schedule" in failed.flat, str(failed)
    assert ask(client, name) == {"function": "first", "method": "first", "added": None}

    deploy(client, name, "second")
    assert ask(client, name) == {"function": "second", "method": "second", "added": "added"}
    client.app_command("stop", name, by_name=True)


def test_what_runs_ends_in_the_old_version_and_what_waits_runs_in_the_new_one(client: Client) -> None:
    name = named(client, "drained")
    deploy(client, name, "first")
    holding = client.begin("editions.py", name, "hold")
    try:
        holding.wait_for_line("calls are put", 60)
        tasks = lambda: [row for row in rows(client.modal("container", "list", "--json")) if name in row.values()]
        wait_for("a container", lambda: bool(tasks()), 30)
        deploy(client, name, "second")
        assert holding.wait(90).results["held"] == ["first", "second"]
    finally:
        holding.end()
    client.app_command("stop", name, by_name=True)


@pytest.mark.only("has_history")
def test_the_history_is_listed_and_an_earlier_version_comes_back(client: Client) -> None:
    name = named(client, "history")
    deploy(client, name, "first")
    client.modal("deploy", "versions.py", "--tag", "blue", DEPLOYMENT=name, EDITION="second")
    history = rows(client.modal("app", "history", name, "--json"))
    versions = [row[next(key for key in row if key.lower() == "version")] for row in history]
    assert versions[:2] == ["v2", "v1"], history
    assert "blue" in history[0].values() and "tests" in history[0].values(), history

    client.modal("app", "rollback", name)
    assert ask(client, name) == {"function": "first", "method": "first", "added": None}
    client.modal("app", "rollback", name, "v2")
    assert ask(client, name) == {"function": "second", "method": "second", "added": "added"}
    assert len(rows(client.modal("app", "history", name, "--json"))) == 4

    unknown = client.modal("app", "rollback", name, "v99", check=False)
    assert unknown.code != 0 and "no version v99" in unknown.flat, str(unknown)
    client.app_command("stop", name, by_name=True)


@pytest.mark.only("has_rollover")
def test_a_rollover_replaces_containers_and_keeps_the_version_s_code(client: Client) -> None:
    name = named(client, "rollover")
    deploy(client, name, "first")
    assert ask(client, name)["function"] == "first"
    client.modal("app", "rollover", name, "--strategy", "recreate")
    assert ask(client, name)["function"] == "first"
    results = client.python("editions.py", name, "tags").results
    assert results["tags"] == {"team": "search"}
    assert {"edition", "held"} <= set(results["functions"]), results
    info = client.modal("app", "info", name).flat
    assert "deployed" in info and "v2" in info, info
    client.app_command("stop", name, by_name=True)
    stopped = client.modal("app", "history", name, check=False)
    assert "No App" not in stopped.flat, "a stopped app is still found by its name"


@pytest.mark.only("has_app_lookup")
def test_an_app_is_looked_up_or_made(client: Client) -> None:
    name = named(client, "made")
    program = (
        "import modal, json\n"
        f"try:\n    modal.App.lookup('{name}')\n    missing = False\nexcept Exception as error:\n    missing = 'is deployed' in str(error)\n"
        f"made = modal.App.lookup('{name}', create_if_missing=True)\n"
        f"again = modal.App.lookup('{name}', create_if_missing=True)\n"
        "print('RESULT ' + json.dumps({'missing': missing, 'same': made.app_id == again.app_id}))\n"
    )
    assert client.python("-c", program).results == {"missing": True, "same": True}
    client.app_command("stop", name, by_name=True)


def test_the_log_of_a_container_is_shown(client: Client) -> None:
    name = named(client, "logs")
    deploy(client, name, "first")
    holding = client.begin("editions.py", name, "hold")
    try:
        holding.wait_for_line("calls are put", 60)
        found = []

        def serves() -> bool:
            listed = rows(client.modal("container", "list", "--json"))
            ids = [value for row in listed if name in row.values() for value in row.values() if str(value).startswith("ta-")]
            found[:] = ids
            return bool(ids)

        wait_for("a container", serves, 30)
        reading = client.begin("-m", "modal", "container", "logs", found[0])
        try:
            wait_for("its output", lambda: "held by first" in reading.output or reading.process.poll() is not None, 40)
            assert "held by first" in reading.output, reading.output
        finally:
            reading.end()
    finally:
        holding.end()
    if client.version.has_rollover:
        program = (
            "import modal, json, itertools\n"
            f"logs = modal.App.lookup('{name}').logs\n"
            "first = next(iter(logs.stream()))\n"
            "print('RESULT ' + json.dumps({'tail': [str(e) for e in logs.tail(50)], 'first': bool(str(first))}))\n"
        )
        results = client.python("-c", program).results
        assert any("held by first" in entry for entry in results["tail"]), results
    client.app_command("stop", name, by_name=True)


def test_a_container_is_listed_and_stopped_and_its_input_runs_again(client: Client) -> None:
    name = named(client, "stopped")
    deploy(client, name, "first")
    holding = client.begin("editions.py", name, "hold")
    try:
        holding.wait_for_line("calls are put", 60)
        listed = lambda: [row for row in rows(client.modal("container", "list", "--json")) if name in row.values()]
        wait_for("a container that runs", lambda: any("Pending" not in row.values() for row in listed()), 30)
        container = next(value for value in listed()[0].values() if re.match(r"ta-", str(value)))
        client.modal("container", "stop", container, *(["--yes"] if client.version.stop_asks else []))
        assert holding.wait(100).results["held"] == ["first", "first"]
    finally:
        holding.end()
    unknown = client.modal("container", "stop", "ta-nobody", *(["--yes"] if client.version.stop_asks else []), check=False)
    assert unknown.code != 0 and "ta-nobody" in unknown.flat, str(unknown)
    client.app_command("stop", name, by_name=True)
