"""A connection that breaks between a request and its answer: the client repeats, and nothing happens twice."""

import pytest

from harness.broken_line import broken_line
from harness.client import Client


@pytest.mark.once  # older clients repeat only some of their requests
@pytest.mark.parametrize("first", [4, 8, 14, 22])
def test_a_repeated_request_makes_no_second_input(client: Client, first: int) -> None:
    with broken_line(client.server.port, [first, 3, 6, 9]) as line:
        run = client.run("counting.py", MODAL_SERVER_URL=f"http://127.0.0.1:{line.port}", check=False, timeout=240)
        assert line.cuts >= 1, "the line never broke: the test shows nothing"
    assert run.code == 0, str(run)
    assert run.results["counts"] == list(range(1, 9)), str(run)
