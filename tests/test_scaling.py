"""How many containers serve a function, and what each of them takes."""

import pytest

from harness.client import Client, Run
from harness.matrix import ClientVersion


@pytest.fixture(scope="module")
def run(shared_client: Client) -> Run:
    return shared_client.run("scaling.py")


def overlap(spans):
    """The most spans of (container, began, ended) that were under way at the same moment."""
    moments = sorted((moment, change) for _, began, ended in spans for moment, change in ((began, 1), (ended, -1)))
    most = now = 0
    for _, change in moments:
        now += change
        most = max(most, now)
    return most


def test_a_limit_on_containers_holds(run: Run) -> None:
    spans = run.results["limited"]
    assert len(spans) == 8
    assert len({container for container, _, _ in spans}) <= 2
    assert overlap(spans) <= 2


def test_one_container_takes_several_inputs_at_the_same_time(run: Run) -> None:
    spans = run.results["together"]
    assert len({container for container, _, _ in spans}) == 1
    assert overlap(spans) == 4


def test_a_container_for_one_input_takes_no_second(run: Run) -> None:
    assert len(set(run.results["once"])) == 2


def test_a_memory_limit_holds(run: Run) -> None:
    assert "ran out of memory (limit: 256 MiB)" in str(run.results["eaten"])


def test_inputs_are_handed_out_in_batches(version: ClientVersion, run: Run) -> None:
    if not version.has_batches:
        pytest.skip("this client has no batches")
    batches = run.results["batched"]
    assert [x for x, _ in batches] == [0, 1, 2, 3, 4]
    assert sorted(size for _, size in batches) == [2, 2, 3, 3, 3]


def test_idle_containers_leave_after_their_window_and_kept_ones_stay(run: Run) -> None:
    results = run.results
    assert results["gone"] == 0, "the window is two seconds"
    assert results["kept"] == 1 and results["still"] == 1
    assert results["warm"].startswith("ta-")
    assert results["left"] == 0


def test_what_fits_on_no_machine_says_once_why_it_waits(run: Run) -> None:
    assert run.flat.count("giant waits: no machine has 4096.00 cores") == 1, str(run)


@pytest.mark.only("has_startup_timeout")
def test_a_container_that_hangs_before_its_first_input_ends_with_a_word(client: Client) -> None:
    results = client.run("hanging.py").results
    assert "startup timeout of 4 s" in results["enter"], results
    assert results["seconds"] < 30


@pytest.mark.once
def test_settings_that_contradict_themselves_are_refused(client: Client) -> None:
    results = client.run("scaling_refused.py").results
    assert "less than min_containers" in results["crossed"]
    assert results["merged"] == [1, 3, 2, 30]
    assert results["running"] == [1, 4]
