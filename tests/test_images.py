"""Image steps of every kind, their cache, and what a failing one tells."""

import re
import time
import uuid

import pytest

from harness.client import Client

BUILD_SECONDS = 600


def test_every_kind_of_step_leaves_its_mark(client: Client) -> None:
    mark = uuid.uuid4().hex
    run = client.run("image_steps.py", timeout=BUILD_SECONDS, MARK=mark)
    results = run.results
    assert results["tree"].startswith("tree v")
    assert results["six"] == "1.17.0"
    assert results["environment"] == {"COLOUR": "blue", "QUOTED": 'with "quotes" and spaces'}
    assert results["directory"] == "/srv"
    assert results["where"] == "/srv"
    assert results["built"] == "built built built "
    assert results["removed"] is False
    assert results["python"].startswith("3.11.")
    assert f"mark {mark}" in run.output, "the output of the build step was not shown"


def test_an_image_that_exists_is_not_built_again(client: Client) -> None:
    mark = uuid.uuid4().hex
    client.run("image_steps.py", timeout=BUILD_SECONDS, MARK=mark)
    again = client.run("image_steps.py", MARK=mark)
    assert f"mark {mark}" not in again.output, "the step ran again"
    assert again.seconds < 20, f"the second run took {again.seconds:.1f} s"


@pytest.mark.only("has_copy_local")
def test_local_files_are_copied_into_layers(client: Client) -> None:
    check_local_files(client.run("image_copy_local.py", timeout=BUILD_SECONDS).results)


@pytest.mark.only("has_add_local")
def test_local_files_are_added_to_layers_and_to_containers(client: Client) -> None:
    results = client.run("image_add_local.py", timeout=BUILD_SECONDS).results
    check_local_files(results)
    assert results["late"] == "a file of the user\ndeeper\n"


def check_local_files(results: dict) -> None:
    assert results["both"] == "a file of the user\ndeeper\n"
    assert results["names"] == ["/srv/files/note.txt", "/srv/files/run.sh", "/srv/files/sub/inner.txt"]
    assert results["ran"] == "ran\n", "the file lost its execute permission"


def test_a_failing_command_shows_itself_its_output_and_its_exit_code(client: Client) -> None:
    before = client.server.traces()
    run = client.run("image_failing_step.py", check=False, timeout=BUILD_SECONDS, STEP="command")
    assert run.code != 0
    assert "the step began" in run.output
    assert "exit 7" in run.flat, "the command is not named"
    assert re.search(r"(code|status)\W+7\b", run.flat), f"the exit code is not named:\n{run}"
    client.server.assert_no_traces(but=before)
    after = client.run("image_failing_step.py", timeout=BUILD_SECONDS, STEP="clean")
    assert "ran" in after.output


def test_a_package_that_does_not_exist_is_named(client: Client) -> None:
    run = client.run("image_failing_step.py", check=False, timeout=BUILD_SECONDS, STEP="package")
    assert run.code != 0
    assert "homeport-there-is-no-such-package" in run.output
    assert "No matching distribution" in run.flat


def test_a_build_function_that_raises_shows_its_exception(client: Client) -> None:
    run = client.run("image_failing_step.py", check=False, timeout=BUILD_SECONDS, STEP="function")
    assert run.code != 0
    assert "the build function began" in run.output
    assert "the download broke off" in run.output


def test_build_output_is_shown_while_the_step_runs(client: Client) -> None:
    mark = uuid.uuid4().hex
    running = client.begin_run("image_slow_step.py", MARK=mark)
    try:
        began = time.monotonic()
        running.wait_for_line(f"step {mark} began", 60)
        assert time.monotonic() - began < 55, "the line came only with the end of the step"
        assert running.process.poll() is None
    finally:
        running.end()
