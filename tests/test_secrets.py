"""Secrets: kept on the server, sealed at rest, seen by containers and by nobody else."""

import json

import pytest

from harness.client import Client
from harness.server import Server

STORED_VALUE = "a value that nobody else may see"


def create(client: Client, name: str, *variables: str, force: bool = True, check: bool = True):
    return client.modal("secret", "create", name, *variables, *(["--force"] if force else []), check=check)


def listed(client: Client) -> list:
    output = client.modal("secret", "list", "--json").output
    # Clients write the heading of the column in different ways.
    return [next(iter(row.values())) for row in json.loads(output[output.index("[") :])]


def test_containers_see_secrets_of_every_kind_and_the_last_one_wins(client: Client) -> None:
    name = f"stored-{client.version.number}"
    create(client, name, f"STORED_KEY={STORED_VALUE}", "SHARED=second")
    results = client.run("keys.py", STORED=name, LOCAL_KEY="from the shell").results
    function = results["function"]
    assert function["DICT_KEY"] == "from a dictionary"
    assert function["STORED_KEY"] == STORED_VALUE
    assert function["LOCAL_KEY"] == "from the shell"
    assert function["DOTENV_KEY"] == "from a file"
    assert function["MODAL_TASK_ID"].startswith("ta-"), "what the server says of a container is not a secret's to change"
    assert results["class"]["SHARED"] == "of the class"
    others = [value for key, value in results["without"].items() if key not in ("PYTHONPATH", "MODAL_TASK_ID")]
    assert others == [None] * len(others), results["without"]
    if client.version.has_function_env:
        assert (function["DIRECT"], function["SHARED"]) == ("from an argument", "last")
        # The options replace the secrets of the class.
        assert (results["with options"]["SHARED"], results["with options"]["DICT_KEY"]) == ("second", None)
    else:
        assert function["SHARED"] == "second"


def test_secrets_are_created_overwritten_listed_and_deleted(client: Client) -> None:
    name = f"listed-{client.version.number}"
    create(client, name, "A=1", "B=2")
    assert name in listed(client)
    again = create(client, name, "A=3", force=False, check=False)
    assert again.code != 0 and name in again.flat and "exists" in again.flat, str(again)
    create(client, name, "A=3")
    if client.version.deletes_secrets:
        client.modal("secret", "delete", name, "--yes")
        assert name not in listed(client)


def test_a_secret_that_is_missing_or_lacks_keys_is_named(client: Client) -> None:
    missing = client.run("keys.py", check=False, STORED="nobody-made-this", LOCAL_KEY="x")
    assert missing.code != 0 and "nobody-made-this" in missing.flat, str(missing)
    assert "modal secret create" in missing.flat, str(missing)
    if client.version.has_required_keys:
        name = f"lacking-{client.version.number}"
        create(client, name, "A=1")
        program = (
            "import modal\n"
            f"secret = modal.Secret.from_name('{name}', required_keys=['A', 'B'])\n"
            "try:\n    secret.hydrate()\nexcept modal.exception.NotFoundError as error:\n    print('SAID', error)\n"
        )
        assert "lacks `B`" in client.python("-c", program).flat


@pytest.mark.only("has_secret_objects")
def test_objects_are_managed_from_python(client: Client) -> None:
    program = """
import json, modal
objects = modal.Secret.objects
objects.delete("managed", allow_missing=True)
objects.create("managed", {"A": "1"})
objects.create("managed", {"A": "ignored"}, allow_existing=True)
secret = modal.Secret.from_name("managed", required_keys=["A"]).hydrate()
secret.update({"B": "2"})
modal.Secret.from_name("managed", required_keys=["A", "B"]).hydrate()
info = secret.info()
names = [found.name for found in objects.list()]
objects.delete("managed")
try:
    objects.delete("managed")
    gone = "still there"
except modal.exception.NotFoundError:
    gone = "gone"
print("RESULT " + json.dumps({"info": [info.name, info.created_by, info.environment_name], "listed": "managed" in names,
                              "gone": gone}))
"""
    results = client.python("-c", program).results
    assert results == {"info": ["managed", "tests", "main"], "listed": True, "gone": "gone"}


@pytest.mark.only("has_lookup")
def test_old_ways_to_find_and_make_a_secret_work(client: Client) -> None:
    name = f"old-{client.version.number}"
    program = (
        "import modal, json\n"
        f"made = modal.Secret.create_deployed('{name}', {{'A': '1'}}, overwrite=True)\n"
        f"print('RESULT ' + json.dumps({{'same': made == modal.Secret.lookup('{name}').object_id}}))\n"
    )
    assert client.python("-c", program).results == {"same": True}


@pytest.mark.once
def test_values_are_nowhere_in_the_clear(client: Client) -> None:
    value = "hunter2-in-no-file-of-the-server"
    create(client, "sealed", f"KEY={value}")
    directory = client.server.data_dir
    assert (directory / "secrets.key").stat().st_mode & 0o777 == 0o600
    for path in [*directory.glob("meta.db*"), client.server.log_path]:
        assert value.encode() not in path.read_bytes(), f"the value is in {path}"


@pytest.mark.once
def test_a_lost_key_is_named_and_new_secrets_can_be_made_after_it(own_server: Server, version, tmp_path) -> None:
    own_server.start()
    client = Client(version, own_server, tmp_path)
    create(client, "kept", "KEY=value")
    key = own_server.data_dir / "secrets.key"
    content = key.read_text()
    own_server.stop()

    key.unlink()
    own_server.start()
    assert listed(client) == ["kept"]
    refused = create(client, "other", "KEY=value", check=False)
    assert refused.code != 0 and "secrets.key is missing" in refused.flat, str(refused)
    key.write_text(content)
    create(client, "other", "KEY=value")
    key.unlink()
    own_server.stop()

    own_server.start()
    for name in ("kept", "other"):
        client.modal("secret", "delete", name, "--yes")
    create(client, "fresh", "KEY=value")
    assert listed(client) == ["fresh"]
    own_server.stop()
