"""The guide's first pattern: weights in the image, and vectors that agree with the reference library."""

import json
import math

import pytest

from harness.client import Client
from harness.paths import EXAMPLES, TESTS

REFERENCE = TESTS / "reference" / "minilm.json"
TOLERANCE = 1e-4
BUILD_SECONDS = 900


def check_vectors(client: Client, example: str) -> None:
    run = client.python("embeddings.py", example, str(REFERENCE), timeout=BUILD_SECONDS)
    expected = [entry["vector"] for entry in json.loads(REFERENCE.read_text())["sentences"]]
    for way in ["together", "alone"]:
        vectors = run.results[way]
        assert [len(vector) for vector in vectors] == [384] * len(expected)
        worst = max(abs(a - b) for mine, theirs in zip(vectors, expected) for a, b in zip(mine, theirs))
        assert worst < TOLERANCE, f"{example}, {way}: off by {worst}"
        assert all(math.isclose(sum(x * x for x in vector), 1, abs_tol=1e-5) for vector in vectors)


@pytest.mark.only("has_build")
def test_weights_downloaded_in_a_build_method(client: Client) -> None:
    run = client.run(str(EXAMPLES / "weights_in_image.py"), timeout=BUILD_SECONDS)
    assert run.output.index("The weights are part of the container image.") < run.output.index("It rained on")
    check_vectors(client, "weights_in_image")


@pytest.mark.only("has_build")
def test_build_and_enter_on_one_method(client: Client) -> None:
    run = client.run(str(EXAMPLES / "weights_stacked.py"), timeout=BUILD_SECONDS)
    assert "384 dimensions" in run.output
    check_vectors(client, "weights_stacked")


def test_weights_downloaded_by_a_build_function(client: Client) -> None:
    run = client.run(str(EXAMPLES / "weights_with_run_function.py"), timeout=BUILD_SECONDS)
    assert run.output.index("The weights are part of the container image.") < run.output.index("It rained on")
    check_vectors(client, "weights_with_run_function")


def test_the_hub_library_raises_its_own_exceptions_in_a_container(client: Client) -> None:
    results = client.run("hub_errors.py", timeout=BUILD_SECONDS).results
    assert results["repository"][0] == "RepositoryNotFoundError", results
    assert "nobody/has-this-model" in results["repository"][1]
    assert results["revision"][0] == "RevisionNotFoundError", results
    assert results["file"][0] == "EntryNotFoundError", results
    assert results["present"][0] == "worked", results


def test_a_model_that_the_hub_lacks_fails_the_build_with_its_name(client: Client) -> None:
    run = client.run("hub_missing_in_build.py", check=False, timeout=BUILD_SECONDS)
    assert run.code != 0
    assert "nobody/has-this-model" in run.flat
    assert "RepositoryNotFoundError" in run.flat
