"""Every way in which a function can die reaches its caller as a clear error, and the next call works."""

import pytest

from harness.client import Client


def die(client: Client, name: str) -> dict:
    results = client.run("deaths.py", "--name", name).results
    assert results["after"] == "still here"
    return results


def test_a_function_that_calls_sys_exit_fails_its_call(client: Client) -> None:
    results = die(client, "exits")
    assert results["types"][0] != "NoneType", "the caller saw no error"
    assert "5" in results["text"] or "exit" in results["text"].lower(), results


def test_a_process_that_exits_hard_reports_its_exit_code(client: Client) -> None:
    results = die(client, "exits_hard")
    assert "Error" in results["types"], results
    assert "exit" in results["text"].lower() and "3" in results["text"], results


@pytest.mark.parametrize("name, signal", [("kills_itself", "SIGKILL"), ("segfaults", "SIGSEGV")])
def test_a_process_that_a_signal_ends_reports_the_signal(client: Client, name: str, signal: str) -> None:
    results = die(client, name)
    assert "Error" in results["types"], results
    assert signal in results["text"], results
    assert "memory" not in results["text"].lower(), "a signal is not a lack of memory"


def test_a_container_that_needs_too_much_memory_is_told_so(client: Client) -> None:
    results = die(client, "eats_memory")
    assert "Error" in results["types"], results
    assert "memory" in results["text"].lower(), results
    assert "300" in results["text"], "the message does not name the limit"


def test_a_call_that_takes_too_long_ends_with_the_timeout_error(client: Client) -> None:
    results = die(client, "oversleeps")
    assert results["types"][0] == "FunctionTimeoutError", results
    assert "5" in results["text"], "the message does not name the limit"
    assert 4 <= results["seconds"] < 30, results
