"""The metrics of a server and the page that explains them."""

import re
import urllib.request
from typing import Dict

import pytest

from harness.client import Client
from harness.paths import ROOT
from harness.server import Server
from harness.waiting import wait_for

PAGE = ROOT / "docs" / "metrics.md"


def metrics(server: Server) -> str:
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as answer:
        return answer.read().decode()


def value(text: str, series: str) -> float:
    return float(re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE).group(1))


def given(text: str) -> Dict[str, str]:
    """The metrics that the server gives, with their types; counters with the ending that their series have."""
    found = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    return {name + ("_total" if kind == "counter" else ""): kind for name, kind in found}


@pytest.mark.once
def test_the_page_names_every_metric_and_no_other(client: Client, server: Server) -> None:
    explained = dict(re.findall(r"^\| `(homeport_\w+)` \| (\w+) \|", PAGE.read_text(), re.MULTILINE))
    assert explained == given(metrics(server))


@pytest.mark.once
def test_labels_have_the_values_that_the_page_lists(client: Client, server: Server) -> None:
    text = metrics(server)
    for name, label, values in re.findall(r"^\| `(\w+)` \| \w+ \| `(\w+)`: ([^|]+) \|", PAGE.read_text(), re.MULTILINE):
        found = set(re.findall(rf'^{name}{{{label}="(\w+)"}} ', text, re.MULTILINE))
        assert found == set(re.findall(r"`(\w+)`", values)), name
    stages = set(re.findall(r"^\| `(\w+)` \| the ", PAGE.read_text(), re.MULTILINE))
    assert stages == set(re.findall(r'homeport_container_start_stage_duration_seconds_count{stage="(\w+)"}', text))


@pytest.mark.once
def test_a_call_is_counted(client: Client, server: Server) -> None:
    before = metrics(server)
    client.run("hello.py")
    after = metrics(server)
    grown = [
        'homeport_inputs_finished_total{status="success"}',
        "homeport_input_queue_duration_seconds_count",
        "homeport_input_duration_seconds_count",
        "homeport_containers_started_total",
        "homeport_container_start_duration_seconds_count",
        'homeport_container_start_stage_duration_seconds_count{stage="client"}',
    ]
    for series in grown:
        assert value(after, series) > value(before, series), series
    wait_for(
        "the end of the container",
        lambda: value(metrics(server), 'homeport_containers_ended_total{outcome="success"}')
        > value(before, 'homeport_containers_ended_total{outcome="success"}'),
        15,
    )
