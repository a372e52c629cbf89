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


def wait_until_empty(what: str, things: Callable[[], list], seconds: float, pause: float = 0.1) -> None:
    """Waits until there is nothing left of `what`; after `seconds` fails with what there is."""
    left: list = []

    def empty() -> bool:
        left[:] = things()
        return not left

    try:
        wait_for(what, empty, seconds, pause)
    except AssertionError:
        raise AssertionError(f"after {seconds:g} s there still are {what}: {left}") from None
