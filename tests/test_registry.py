"""Images from a registry: real layers, and clear words about images that aren't there."""

from pathlib import Path
from typing import Iterator

import pytest

from harness.client import Client
from harness.paths import CACHE
from harness.registry import PASSWORD, REPOSITORY, TAG, USER, private_registry, registry
from harness.server import free_port

BUILD_SECONDS = 600


@pytest.fixture(scope="module")
def registry_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def registry_address(registry_directory: Path, machine: None) -> Iterator[str]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with registry(registry_directory, CACHE) as address:
        yield address


@pytest.fixture(scope="module")
def private_address(registry_directory: Path, registry_address: str) -> Iterator[str]:
    with private_registry(registry_directory) as address:
        yield address


def test_the_layers_of_an_image_are_unpacked_exactly(client: Client, registry_address: str) -> None:
    reference = f"{registry_address}/{REPOSITORY}:{TAG}"
    seen = client.run("image_from_registry.py", timeout=BUILD_SECONDS, REFERENCE=reference).results
    assert seen["facts"]["setuid"] == {"mode": "0o4755", "owner": [0, 0], "links": 1}
    assert seen["facts"]["owned"] == {"mode": "0o640", "owner": [1234, 567], "links": 1}
    assert seen["facts"]["linked"]["links"] == 2 and seen["same file"] is True
    assert seen["attribute"] == "kept"
    assert seen["removed"] is False
    assert seen["emptied"] == ["new"]
    assert seen["variable"] == "yes"


@pytest.mark.once
def test_a_private_image_comes_with_a_secret(client: Client, private_address: str) -> None:
    reference = f"{private_address}/{REPOSITORY}:{TAG}"
    login = {"REGISTRY_USERNAME": USER, "REGISTRY_PASSWORD": PASSWORD}
    run = client.run("image_private.py", timeout=BUILD_SECONDS, REFERENCE=reference, **login)
    assert run.results == {"variable": "yes"}


@pytest.mark.once
def test_a_private_image_is_refused_without_the_right_login(
    client: Client, registry_directory: Path, registry_address: str
) -> None:
    # At an address of its own, from which nobody had anything yet.
    with private_registry(registry_directory) as address:
        reference = f"{address}/{REPOSITORY}:{TAG}"
        for login in [{}, {"REGISTRY_USERNAME": USER, "REGISTRY_PASSWORD": "wrong"}]:
            run = client.run("image_private.py", check=False, timeout=BUILD_SECONDS, REFERENCE=reference, **login)
            assert run.code != 0
            assert "refuses access" in run.flat and reference in run.flat.replace(" ", ""), str(run)


def test_files_are_copied_from_another_image(client: Client, registry_address: str) -> None:
    reference = f"{registry_address}/{REPOSITORY}:{TAG}"
    results = client.run("image_copy_from.py", timeout=BUILD_SECONDS, REFERENCE=reference).results
    assert results == {"owned": "not root's", "names": ["new"]}


@pytest.mark.once
def test_what_this_server_does_not_do_is_refused_with_a_way_out(client: Client) -> None:
    ways = {
        "aws": "aws ecr get-login-password",
        "python": "standalone Python",
        "volume": "run_function",
        "onbuild": "ONBUILD",
        "url": "fetch it in a RUN",
    }
    for what, words in ways.items():
        run = client.run("image_refused.py", check=False, timeout=BUILD_SECONDS, WHAT=what)
        assert run.code != 0, f"{what} was not refused"
        assert words in run.flat, str(run)


def test_an_unknown_tag_is_named(client: Client, registry_address: str) -> None:
    reference = f"{registry_address}/{REPOSITORY}:no-such-tag"
    run = client.run("image_from_registry.py", check=False, timeout=BUILD_SECONDS, REFERENCE=reference)
    assert run.code != 0
    assert reference in run.flat.replace(" ", ""), str(run)
    assert "not found" in run.flat.lower() or "unknown" in run.flat.lower(), str(run)


def test_a_registry_that_does_not_answer_is_named(client: Client) -> None:
    reference = f"127.0.0.1:{free_port()}/{REPOSITORY}:{TAG}"
    run = client.run("image_from_registry.py", check=False, timeout=BUILD_SECONDS, REFERENCE=reference)
    assert run.code != 0
    assert reference in run.flat.replace(" ", ""), str(run)


def test_a_path_that_is_no_image_reference_is_refused(client: Client) -> None:
    run = client.run("image_from_registry.py", check=False, timeout=BUILD_SECONDS, REFERENCE="Not A Reference!")
    assert run.code != 0
    assert "Not A Reference!" in run.flat, str(run)
