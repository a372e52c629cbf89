"""Classes with parameters: pools of their own, options, and the guide's last pattern."""

import json

import pytest

from harness.client import Client, Run
from harness.matrix import ClientVersion
from harness.paths import EXAMPLES, TESTS

BUILD_SECONDS = 900
REFERENCE = TESTS / "reference" / "minilm.json"


@pytest.fixture(scope="module")
def run(shared_client: Client) -> Run:
    name = f"pools-{shared_client.version.number.replace('.', '-')}"
    shared_client.modal("deploy", "pools.py", timeout=400, DEPLOYMENT=name)
    run = shared_client.python("pool_lookups.py", name)
    stop = shared_client.app_command("stop", name, by_name=True)
    assert stop.code == 0, str(stop)
    return run


def test_every_set_of_parameters_has_containers_of_its_own(run: Run) -> None:
    ten, same, other, plain = run.results["pools"]
    assert ten[:2] == ["ten", 10] and other[:2] == ["other", 2] and plain[:2] == ["plain", 2]
    assert same[2] == ten[2], "the same parameters find the same container"
    assert len({ten[2], other[2], plain[2]}) == 3


def test_inherited_enter_methods_run_once_and_in_order(run: Run) -> None:
    for _, _, _, entered in run.results["pools"]:
        assert entered == ["first", "second"]


def test_options_make_a_pool_of_their_own(run: Run) -> None:
    where = run.results["options"]
    assert where[:2] == ["ten", 10]
    assert where[2] != run.results["pools"][0][2]
    assert run.results["eaten"] == 400 << 20
    assert "ran out of memory (limit: 192 MiB)" in str(run.results["limited"])


def test_an_instance_is_kept_warm_by_itself(run: Run) -> None:
    name, seconds = run.results["warm"]
    assert name == "warm"
    assert seconds < 1, "its container was there"


def test_concurrency_is_an_option(run: Run) -> None:
    spans = run.results["wide"]
    assert len({container for container, _, _ in spans}) == 1
    assert max(began for _, began, _ in spans) < min(ended for _, _, ended in spans)


def test_batches_of_a_method_and_as_an_option(version: ClientVersion, run: Run) -> None:
    if not version.has_batches:
        pytest.skip("this client has no batches")
    assert run.results["batches"] == [[2, 2], [4, 4, 4, 4]]


def test_a_class_that_is_not_there_is_not_found(run: Run) -> None:
    assert "Nobody" in run.results["missing"]


def test_many_models_from_one_volume(client: Client) -> None:
    run = client.run(str(EXAMPLES / "many_models.py"), timeout=BUILD_SECONDS)
    assert run.output.count("loaded whole") == run.output.count("loaded half") == 1
    assert "whole:" in run.output and "half:" in run.output


@pytest.mark.once
def test_each_model_gives_the_vectors_of_its_own_weights(client: Client) -> None:
    expected = [entry["vector"] for entry in json.loads(REFERENCE.read_text())["sentences"]]
    vectors = client.python("model_choice.py", str(REFERENCE), timeout=BUILD_SECONDS).results
    together, alone = vectors["whole"][: len(expected)], vectors["whole"][len(expected) :]
    for found in (together, alone):
        assert max(abs(a - b) for mine, theirs in zip(found, expected) for a, b in zip(mine, theirs)) < 1e-4
    half = vectors["half"][0]
    assert len(half) == len(expected[0])
    assert max(abs(a - b) for a, b in zip(half, expected[0])) > 1e-2, "half of the layers give other vectors"
