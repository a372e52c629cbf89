"""Deployed apps: used from other processes, replaced, listed, read, stopped."""

import json

from harness.client import Client
from harness.waiting import wait_for


def test_a_deployment_serves_other_processes_until_it_is_stopped(client: Client) -> None:
    name = f"deployed-{client.version.number.replace('.', '-')}"
    environment = {"DEPLOYMENT": name, "EDITION": "first"}
    client.modal("deploy", "deployed.py", timeout=400, **environment)

    results = client.python("lookups.py", name).results
    assert results["edition"] == ["first", 1]
    assert results["map"] == [["first", 1], ["first", 2]]
    assert results["spawned"] == ["first", 3]
    assert results["method"] == 105
    assert "nobody" in results["missing"], results["missing"]

    apps = client.modal("app", "list", "--json").output
    listed = [app for app in json.loads(apps[apps.index("[") :]) if name in app.values()]
    assert len(listed) == 1 and "deployed" in listed[0].values(), apps

    client.modal("deploy", "deployed.py", timeout=400, **{**environment, "EDITION": "second"})
    assert client.python("lookups.py", name).results["edition"] == ["second", 1]

    assert "edition second called with 1" in read_logs(client, name, "edition second called with 1")

    client.app_command("stop", name, by_name=True)
    after = client.python("lookups.py", name, check=False)
    assert after.code != 0
    assert "NotFoundError" in after.output, str(after)


def test_stopping_or_reading_an_unknown_app_says_that_it_is_unknown(client: Client) -> None:
    stop = client.app_command("stop", "no-such-app", by_name=True, check=False)
    assert stop.code != 0
    assert "no-such-app" in stop.flat, str(stop)


def read_logs(client: Client, name: str, until: str) -> str:
    """Older clients follow the log until the app stops, newer ones print what is there and end."""
    arguments = ["--name", name] if client.version.names_apps_by_flag else [name]
    reading = client.begin("-m", "modal", "app", "logs", *arguments)
    try:
        wait_for(f"{until!r} in the log", lambda: until in reading.output or reading.process.poll() is not None, 30)
        return reading.output
    finally:
        reading.end()
