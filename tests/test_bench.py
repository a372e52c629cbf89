"""`homeport bench start` on a real server, with the real client."""

import json

import pytest
from harness.client import Client
from harness.server import homeport

STAGES = [
    "network",
    "mount",
    "runtime",
    "dispatch",
    "interpreter",
    "client import",
    "to user code",
    "user import",
    "first input",
]


def test_the_stages_of_cold_starts_add_up(client: Client) -> None:
    runs = 3
    flags = ["--python", str(client.version.python), "--runs", str(runs), "--json"]
    bench = homeport("bench", "start", *flags, data_dir=client.server.data_dir, timeout=600)
    assert bench.returncode == 0, bench.stdout + bench.stderr
    report = json.loads(bench.stdout)
    assert report["client"] == client.version.number
    assert [stage["name"] for stage in report["stages"]] == STAGES
    for stage in report["stages"] + report["totals"] + report["peers"]:
        assert stage["seconds"]["count"] == runs, stage
    for name in ("mount", "runtime", "interpreter", "client import"):
        stage = next(stage for stage in report["stages"] if stage["name"] == name)
        assert stage["seconds"]["min"] > 0, stage
    to_output = next(total for total in report["totals"] if total["name"] == "to output")["seconds"]
    # No run takes less than the quickest of each stage together, nor more than the slowest.
    assert sum(stage["seconds"]["min"] for stage in report["stages"]) <= to_output["min"] + 1e-6
    assert sum(stage["seconds"]["max"] for stage in report["stages"]) >= to_output["max"] - 1e-6
    assert len(report["peers"]) == 2


@pytest.mark.once
def test_calls_are_measured_beside_a_bare_server(client: Client) -> None:
    small = ["--rounds", "2", "--calls", "20", "--inputs", "100", "--queued", "1000", "--payload", "10MB"]
    flags = ["--python", str(client.version.python), *small, "--json"]
    bench = homeport("bench", "calls", *flags, data_dir=client.server.data_dir, timeout=600)
    assert bench.returncode == 0, bench.stdout + bench.stderr
    report = json.loads(bench.stdout)
    assert report["client"] == client.version.number
    remote = report["remote"]
    assert remote["ours"]["count"] == remote["floor"]["count"] == 40
    assert 0 < remote["floor"]["median"] < remote["ours"]["median"] < 1, remote
    assert [rate["containers"] for rate in report["rates"]] == [1, 4]
    for rate in report["rates"]:
        assert 10 < rate["per_second"]["median"], rate
        # Real containers do more for an input than a server that does nothing.
        assert rate["of_floor"]["median"] < 1.5, rate
    assert [payload["bytes"] for payload in report["payloads"]] == [1_000_000, 10_000_000]
    for payload in report["payloads"]:
        assert 0 < payload["upload"]["median"] and 0 < payload["of_upload"]["median"] < 10, payload
    assert [queue["depth"] for queue in report["queues"]] == [100, 1000]


@pytest.mark.once
def test_a_python_without_the_client_is_named(client: Client) -> None:
    flags = ["--python", "/usr/bin/python3"]
    bench = homeport("bench", "start", *flags, data_dir=client.server.data_dir, timeout=60)
    assert bench.returncode == 1
    assert "`/usr/bin/python3` cannot import the client package" in bench.stderr, bench.stderr
