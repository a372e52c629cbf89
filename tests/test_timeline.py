"""`homeport app timeline`: how the containers of an app started."""

import json
import re
import uuid

import pytest

from harness.client import Client
from harness.server import homeport
from harness.waiting import wait_for

STAGES = ["queued", "placed", "network", "mounted", "process", "client", "code", "first_input"]


def test_the_stages_of_a_start_are_shown_while_and_after_it_runs(client: Client) -> None:
    name = f"timeline-{uuid.uuid4().hex[:8]}"
    running = client.begin("timeline.py", NAME=name)
    try:
        running.wait_for_line("called", 120)
        live = timeline(client, name)
        assert [start["state"] for start in live["starts"]] == ["serving"], live
    finally:
        run = running.wait(60)
    assert run.code == 0, str(run)
    app = live["app_id"]
    wait_for("the end of the container", lambda: timeline(client, app)["starts"][0]["state"] == "ended", 30)
    start = timeline(client, app)["starts"][0]
    assert start["outcome"] == "success" and "Model" in start["function"], start
    seconds = {stage["name"]: stage["seconds"] for stage in start["stages"]}
    assert list(seconds) == STAGES, start
    # `@enter` sleeps for half a second, the method for a quarter.
    assert 0.5 <= seconds["code"] < 10 and 0.25 <= seconds["first_input"] < 10, seconds
    assert seconds["client"] > 0.01 and seconds["process"] > 0.001, seconds


@pytest.mark.once
def test_the_chart_has_a_line_for_each_start_and_fits_the_terminal(client: Client) -> None:
    name = f"timeline-{uuid.uuid4().hex[:8]}"
    client.python("timeline.py", NAME=name)
    shown = homeport("app", "timeline", name, data_dir=client.server.data_dir)
    assert shown.returncode == 0, shown.stderr
    lines = [line for line in shown.stdout.splitlines() if line.startswith("ta-")]
    assert len(lines) == 1, shown.stdout
    assert re.search(r" [qpnmrcui]*r+c+u+i+$", lines[0]), shown.stdout
    assert all(len(line) <= 110 for line in lines), shown.stdout


@pytest.mark.once
def test_an_unknown_app_is_named(client: Client) -> None:
    shown = homeport("app", "timeline", "no-such-app", data_dir=client.server.data_dir)
    assert shown.returncode == 1 and "no app `no-such-app`" in shown.stderr, shown.stderr


def timeline(client: Client, app: str) -> dict:
    shown = homeport("app", "timeline", app, "--json", data_dir=client.server.data_dir)
    assert shown.returncode == 0, shown.stderr
    return json.loads(shown.stdout)
