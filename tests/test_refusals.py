"""What comes later, or never, is refused in words that name it."""

import pytest

from harness.client import Client

# A command or a program, and a word of the refusal; an ability of the client where not all of them have it.
COMMANDS = [
    (["dict", "list"], "Dicts"),
    (["queue", "list"], "Queues"),
    (["container", "exec", "ta-1", "true"], "container exec"),
]
NEWER_COMMANDS = [
    (["workspace", "members", "list"], "no members"),
    (["workspace", "service-users", "list"], "service users"),
    (["workspace", "proxy-tokens", "list"], "web endpoints"),
    (["environment", "roles", "list", "main"], "no roles"),
    (["dashboard"], "no dashboard"),
    (["app", "stats", "ap-0123456789012345678901"], "statistics"),
]
PROGRAMS = [
    ("with modal.Dict.ephemeral() as d: d['a'] = 1", "Dicts"),
    ("with modal.Queue.ephemeral() as q: q.put(1)", "Queues"),
]


def test_commands_of_absent_features_name_the_feature(client: Client) -> None:
    commands = COMMANDS + (NEWER_COMMANDS if client.version.has_rollover else [])
    for command, word in commands:
        run = client.modal(*command, check=False)
        assert run.code != 0 and word in run.flat and "Homeport" in run.flat, str(run)


def test_programs_that_use_absent_features_learn_which(client: Client) -> None:
    for line, word in PROGRAMS:
        run = client.python("-c", f"import modal\n{line}", check=False)
        assert run.code != 0 and word in run.flat, str(run)
    if client.version.has_app_lookup:
        sandbox = "modal.Sandbox.create('true', app=modal.App.lookup('sandboxed', create_if_missing=True))"
        run = client.python("-c", f"import modal\n{sandbox}", check=False)
        assert run.code != 0 and "sandboxes" in run.flat, str(run)


def test_functions_that_ask_for_absent_features_are_refused_when_they_are_made(client: Client, tmp_path) -> None:
    asked = [
        ("@app.function(schedule=modal.Cron('* * * * *'))", "schedules"),
        ("@app.function(block_network=True)", "without a network"),
        ("@app.function(volumes={'/b': modal.CloudBucketMount('bucket')})", "cloud bucket"),
        ("@app.function(proxy=modal.Proxy.from_name('p'))", "proxies"),
    ]
    endpoint = "fastapi_endpoint" if client.version.has_app_lookup else "web_endpoint"
    asked.append((f"@app.function()\n@modal.{endpoint}()", "web endpoints"))
    for number, (decorators, word) in enumerate(asked):
        program = tmp_path / f"asks_{number}.py"
        program.write_text(f"import modal\napp = modal.App('refused')\n{decorators}\ndef f():\n    pass\n")
        run = client.modal("deploy", str(program), check=False)
        assert run.code != 0 and word in run.flat, str(run)


def test_a_token_is_made_where_the_server_runs(client: Client) -> None:
    run = client.modal("token", "new", check=False, MODAL_TOKEN_ID=None, MODAL_TOKEN_SECRET=None)
    assert run.code != 0 and "homeport" in run.flat, str(run)


@pytest.mark.only("has_rollover")
def test_the_token_in_use_is_shown(client: Client) -> None:
    shown = client.modal("token", "info").flat
    assert "homeport" in shown and "tests" in shown, shown


def test_tokens_and_profiles_of_a_configuration_file_are_used(client: Client) -> None:
    token = client.server.token()
    without = {name: None for name in token}
    given = ["--token-id", token["MODAL_TOKEN_ID"], "--token-secret", token["MODAL_TOKEN_SECRET"]]
    client.modal("token", "set", *given, "--profile", "mine", **without)
    client.modal("profile", "activate", "mine", **without)
    assert "mine" in client.modal("profile", "current", **without).flat
    listed = client.modal("profile", "list", **without).flat
    assert "mine" in listed and "homeport" in listed, listed
    client.modal("config", "set-environment", "main", **without)
    assert "main" in client.modal("config", "show", **without).flat
    client.modal("app", "list", **without)
