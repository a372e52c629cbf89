"""Waiting for a condition with a limit, so that no test hangs and none sleeps longer than it must."""

import time
from typing import Callable, TypeVar

T = TypeVar("T")


def wait_for(what: str, condition: Callable[[], T], seconds: float, pause: float = 0.1) -> T:
    """Returns the first true answer of `condition`; after `seconds` fails with `what` and the last answer."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"no {what} within {seconds:g} s; the last look gave {answer!r}")
        time.sleep(pause)
