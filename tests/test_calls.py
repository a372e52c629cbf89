"""Calling functions: results, order, streams, payloads, exceptions."""

import re
from pathlib import Path

import pytest

from harness.client import Client
from harness.server import Server


def test_a_function_answers_and_its_output_is_shown(client: Client) -> None:
    run = client.run("hello.py")
    assert "hello, harbour" in run.output
    assert "greeting harbour" in run.output


def test_single_calls(client: Client) -> None:
    results = client.run("calls.py::unary").results
    assert results["positional"] == 9
    assert results["keyword"] == 3
    assert results["local"] == 16
    assert results["asynchronous"] == 15
    assert results["nothing"] == 0
    assert results["nested"] == 0 + 1 + 4 + 9 + 16
    assert results["first"] == results["second"], "the second call did not go to the warm container"


def test_maps_keep_order_and_report_exceptions(client: Client) -> None:
    results = client.run("calls.py::maps").results
    assert results["map"] == [x * x for x in range(60)]
    assert results["starmap"] == [3, 7]
    assert results["unordered"] == sorted(x * x for x in range(10))
    assert results["empty"] == []
    assert results["kept"][0] == 0 and results["kept"][2] == 2
    assert "1 is odd" in results["kept"][1] and "3 is odd" in results["kept"][3]
    assert results["raised"] in ("1 is odd", "3 is odd")


def test_spawned_calls_are_found_again_by_their_id(client: Client) -> None:
    results = client.run("calls.py::spawns").results
    assert results["spawned"] == [0, 1, 4, 9]
    assert results["again"] == 0
    assert results["reopened"] == 9
    assert len(set(results["ids"])) == 4 and all(name.startswith("fc-") for name in results["ids"])


def test_generators_deliver_every_item_in_order(client: Client) -> None:
    results = client.run("calls.py::generators").results
    assert results["sync"] == [0, 1, 2, 3, 4]
    assert results["asynchronous"] == [0, 10, 20, 30, 40]
    assert results["long"] == sum(range(3000))
    assert results["empty"] == []


def test_large_arguments_and_results_arrive_unchanged(client: Client) -> None:
    results = client.run("calls.py::payloads").results
    assert results == {"inline": True, "blob": True, "multipart": True, "map": [True, True], "spawn": True}


def test_an_exception_keeps_its_type_and_its_remote_traceback(client: Client) -> None:
    results = client.run("calls.py::caught").results
    assert results["type"] == "ValueError"
    assert results["text"] == "1 is odd"
    assert "fail_when_odd" in results["traceback"]


def test_an_uncaught_exception_fails_the_run_and_shows_the_remote_line(client: Client) -> None:
    run = client.run("calls.py::uncaught", check=False)
    assert run.code != 0
    assert 'raise ValueError(f"{x} is odd")' in run.output
    assert "1 is odd" in run.output


def test_several_calls_are_waited_for_together(client: Client) -> None:
    results = client.run("handles.py::several").results
    assert results["gathered"] == [0, 1, 4]
    assert results["failed"][0] == "ValueError" and results["failed"][-1] == "2 failed"
    assert results["for_each"] is None and results["ignored"] is None
    assert results["for_each_failed"][-1] == "1 failed"
    assert results["starmap"] == 3 and "TypeError" in results["starmap_failed"]
    assert results["keywords"] == [11, 12]


def test_calls_have_asynchronous_forms(client: Client) -> None:
    results = client.run("handles.py::asynchronous").results
    assert results == {"remote": 9, "map": [1, 4, 9], "spawned": 16, "starmap": [3]}


def test_a_cancelled_call_ends_and_frees_its_container(client: Client) -> None:
    results = client.run("handles.py::cancelled").results
    assert "TimeoutError" in results["not_yet"] and "TimeoutError" in results["still_not"]
    assert results["cancelled"][0] == "RemoteError" and "cancelled" in results["cancelled"][-1]
    assert results["same"], "the next call did not go to the container that was freed"
    assert results["freed_after"] < 15, results
    if "terminated" in results:
        assert results["terminated"][0] == "RemoteError"
        assert results["replaced"], "the container was not ended"


def test_a_call_over_its_timeout_frees_its_container_for_the_next_input(client: Client) -> None:
    results = client.run("handles.py::too_slow").results
    assert results["late"][0] == "FunctionTimeoutError" and "4" in results["late"][-1]
    assert results["next_elsewhere"]


def test_a_call_knows_the_calls_that_it_made(client: Client) -> None:
    results = client.run("handles.py::graph").results
    assert results["name"] == "outer" and results["status"] == "SUCCESS" and results["call"]
    assert results["task"].startswith("ta-")
    assert results["children"] == [["square", "SUCCESS"]] * 3
    assert results["of_one_call"] == 1


@pytest.mark.only("has_spawn_map")
def test_calls_that_nobody_waits_for_are_made(client: Client) -> None:
    results = client.run("handles.py::left_alone").results
    assert results["seen"] == list(range(20))
    assert results.get("generated", [0, 1, 2]) == [0, 1, 2]


@pytest.mark.once
def test_a_spawned_map_is_read_by_place_and_in_order(client: Client) -> None:
    results = client.run("handles.py::long_spawned_map").results
    assert results["inputs"] == 1200
    assert results["last"] == 1199**2
    assert results["sum"] == sum(n * n for n in range(1200))
    assert results["part"] == [9, 16]


def test_a_function_may_come_as_data(client: Client) -> None:
    assert client.run("handles.py::as_data").results["serialized"] == 2


@pytest.mark.once
def test_arguments_and_results_of_two_hundred_megabytes_arrive(client: Client) -> None:
    assert client.run("handles.py::huge", "--megabytes", "200").results["same"]


@pytest.mark.once
def test_a_generator_waits_for_a_slow_reader(client: Client, server: Server) -> None:
    before = peak(server)
    assert client.run("handles.py::slow_reader", "--count", "300").results["seen"] == 300
    # 300 MiB went through; what may wait and what may be asked for again is less.
    assert peak(server) - before < 250 << 20


def peak(server: Server) -> int:
    """The most memory that the server ever had, in bytes."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found, status
    return int(found[1]) << 10
