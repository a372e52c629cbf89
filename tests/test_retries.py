"""`retries` of functions: how often they are tried again, when, and after which ends."""

import uuid

from harness.client import Client


def test_failed_inputs_are_tried_again_as_their_function_asks(client: Client) -> None:
    run = client.run("retries.py", "--run", uuid.uuid4().hex)
    results = run.results
    assert results["remote"] == 2
    assert results["map"] == [2, 2, 2, 2]
    assert results["spawn"] == 2
    assert results["dies"] == [2, 2], "the death of a container and a timeout count as attempts"
    assert results["never"] == "ValueError: attempt 3", "the caller gets the failure of the last attempt"
    assert results["once"] == "ValueError: once"
    first, second, third = results["times"]
    assert 0.9 <= second - first < 4 and 1.9 <= third - second < 5, results["times"]
    assert "not retried" not in run.output
