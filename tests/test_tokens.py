"""Who may talk to the server."""

import re

from harness.client import Client
from harness.server import homeport


def test_a_wrong_secret_is_refused_with_a_helpful_word(client: Client) -> None:
    run = client.run("hello.py", check=False, MODAL_TOKEN_SECRET="as-wrong")
    assert run.code != 0
    assert re.search("token", run.flat, re.IGNORECASE), str(run)
    assert "homeport token create" in run.flat, f"the message doesn't say what to do:\n{run}"
    assert "hello, harbour" not in run.output


def test_an_unknown_token_is_refused(client: Client) -> None:
    run = client.run("hello.py", check=False, MODAL_TOKEN_ID="ak-unknown", MODAL_TOKEN_SECRET="as-unknown")
    assert run.code != 0
    assert re.search("token", run.flat, re.IGNORECASE), str(run)


def test_no_token_is_refused(client: Client) -> None:
    run = client.run("hello.py", check=False, MODAL_TOKEN_ID=None, MODAL_TOKEN_SECRET=None)
    assert run.code != 0
    assert re.search("token", run.flat, re.IGNORECASE), str(run)


def test_a_revoked_token_is_refused(client: Client) -> None:
    made = homeport("token", "create", "--name", "short-lived", data_dir=client.server.data_dir)
    token = dict(re.findall(r"^(MODAL_TOKEN_(?:ID|SECRET))=(\S+)$", made.stdout, re.MULTILINE))
    assert "hello, harbour" in client.run("hello.py", **token).output
    listed = homeport("token", "list", data_dir=client.server.data_dir).stdout
    assert token["MODAL_TOKEN_ID"] in listed and "short-lived" in listed
    assert token["MODAL_TOKEN_SECRET"] not in listed
    revoked = homeport("token", "revoke", token["MODAL_TOKEN_ID"], data_dir=client.server.data_dir)
    assert revoked.returncode == 0, revoked.stderr
    assert client.run("hello.py", check=False, **token).code != 0
