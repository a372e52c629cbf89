"""Environments: names live in one each."""

import json

import pytest

from harness.client import Client


def rows(run) -> list:
    return json.loads(run.output[run.output.index("[") :])


def names(run) -> list:
    return [next(iter(row.values())) for row in rows(run)]


def delete(client: Client, environment: str, check: bool = True):
    sure = "--yes" if client.version.stop_asks else "--confirm"
    return client.modal("environment", "delete", environment, sure, check=check)


def test_names_live_in_their_environment_and_end_with_it(client: Client) -> None:
    environment = f"dev-{client.version.number.replace('.', '-')}"
    delete(client, environment, check=False)
    client.modal("environment", "create", environment)
    assert {"main", environment} <= set(names(client.modal("environment", "list", "--json")))
    again = client.modal("environment", "create", environment, check=False)
    assert again.code != 0 and "exists" in again.flat, str(again)

    client.modal("volume", "create", "of-dev", "--env", environment)
    client.modal("secret", "create", "of-dev", "A=1", MODAL_ENVIRONMENT=environment)
    for kind in ("volume", "secret"):
        assert "of-dev" in names(client.modal(kind, "list", "--json", "--env", environment))
        assert "of-dev" not in names(client.modal(kind, "list", "--json"))

    client.modal("deploy", "--env", environment, "versions.py", DEPLOYMENT="of-dev", EDITION="dev")
    asked = client.python("editions.py", "of-dev", "ask", MODAL_ENVIRONMENT=environment)
    assert asked.results["function"] == "dev"
    assert client.python("editions.py", "of-dev", "ask", check=False).code != 0, "it is not in the default environment"

    delete(client, environment)
    assert environment not in names(client.modal("environment", "list", "--json"))
    gone = client.modal("volume", "list", "--env", environment, check=False)
    assert gone.code != 0 and environment in gone.flat, str(gone)


def test_an_unknown_environment_is_named(client: Client) -> None:
    for command in (["run", "hello.py"], ["app", "list"], ["volume", "create", "x"], ["secret", "list"]):
        run = client.modal(*command, check=False, MODAL_ENVIRONMENT="nowhere")
        assert run.code != 0 and "no environment `nowhere`" in run.flat, str(run)


def test_what_an_environment_does_not_have_is_refused(client: Client) -> None:
    for change in (["--set-name", "other"], ["--set-web-suffix", "web"]):
        run = client.modal("environment", "update", "main", *change, check=False)
        assert run.code != 0 and "Homeport" in run.flat, str(run)
    run = delete(client, "main", check=False)
    assert run.code != 0 and "stays" in run.flat, str(run)


@pytest.mark.only("has_rollover")
def test_environments_are_managed_from_python(client: Client) -> None:
    program = """
import json, modal
objects = modal.Environment.objects
objects.create("made-in-python")
listed = [found.name for found in objects.list()]
made = modal.Environment.from_name("made-in-python").hydrate()
apps = made.apps.list()
objects.delete("made-in-python")
try:
    modal.Environment.from_name("made-in-python").hydrate()
    gone = False
except modal.exception.NotFoundError:
    gone = True
print("RESULT " + json.dumps({"listed": "made-in-python" in listed, "name": made.name, "apps": apps, "gone": gone,
                              "context": modal.Environment.from_context().hydrate().name,
                              "workspace": modal.Workspace.from_context().hydrate().name}))
"""
    results = client.python("-c", program).results
    assert results == {"listed": True, "name": "made-in-python", "apps": [], "gone": True, "context": "main",
                       "workspace": "homeport"}
