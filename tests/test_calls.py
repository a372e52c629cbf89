"""Calling functions: results, order, streams, payloads, exceptions."""

from harness.client import Client


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
