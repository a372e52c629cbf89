"""Classes: life cycle, constructor arguments, parameters."""

import pytest

from harness.client import Client


def test_enter_and_exit_run_once_around_all_calls_of_a_container(client: Client) -> None:
    run = client.run("classes.py::main")
    calls = run.results["calls"]
    assert [(number, x) for number, x, _ in calls] == [(1, "a"), (2, "b"), (3, "c")]
    assert len({process for _, _, process in calls}) == 1
    assert run.results["generator"] == [0, 1, 2]
    assert run.results["map"] == [0, 1, 2, 3, 4]
    assert "lost" in run.results["failed"]
    entered, ended = run.output.count("ENTER"), run.output.count("EXIT after")
    assert entered >= 1
    assert ended == entered, f"{entered} containers entered, {ended} ran their exit method:\n{run}"


def test_an_exception_in_enter_reaches_the_caller(client: Client) -> None:
    results = client.run("classes.py::broken").results
    assert results == {"type": "RuntimeError", "text": "the weights are damaged"}


@pytest.mark.only("has_constructor_arguments", "has_build")
def test_constructor_arguments_choose_the_instance_and_build_steps_its_image(client: Client) -> None:
    results = client.run("classes_with_constructor.py", timeout=400).results
    assert results["default"] == ["plain", 10]
    assert results["given"] == ["ten", 50]
    assert results["built"] == "made while the image was built"


@pytest.mark.only("has_parameters")
def test_parameters_choose_the_instance(client: Client) -> None:
    results = client.run("classes_with_parameters.py").results
    assert results["default"] == ["plain", 10]
    assert results["given"] == ["ten", 50]
