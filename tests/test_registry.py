"""Images from a registry: real layers, and clear words about images that aren't there."""

from pathlib import Path
from typing import Iterator

import pytest

from harness.client import Client
from harness.paths import CACHE
from harness.registry import REPOSITORY, TAG, registry
from harness.server import free_port

BUILD_SECONDS = 600


@pytest.fixture(scope="module")
def registry_address(tmp_path_factory: pytest.TempPathFactory, machine: None) -> Iterator[str]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with registry(tmp_path_factory.mktemp("registry"), CACHE) as address:
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
