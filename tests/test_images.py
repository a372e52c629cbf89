"""Image steps of every kind, their cache, and what a failing one tells."""

import json
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


def test_every_instruction_of_a_dockerfile_does_what_docker_does(client: Client) -> None:
    results = client.run("image_dockerfile.py", timeout=BUILD_SECONDS).results
    assert results["files"] == {
        "copied/made": "nobody, not told\n",
        "files/first.txt": "first\n",
        "files/sub/deep.txt": "deep\n",
        "note.txt": "noted\n",
        "inline/EOF": "hello everybody\n",
        "inline/PLAIN": "hello $GREETED\n",
        "script": "one\ntwo words\n",
        "cache": "x\n",
        "shell": "bash\n",
        "exec": "exec\n",
    }
    assert results["made"] == "nobody, not told\n"
    assert results["ignored"] is not client.version.has_add_local, "what .dockerignore names"
    assert results["owned"] == [1000, 1000, "0o640"]
    assert results["environment"] == {"GREETED": "everybody", "NEXT": "two words", "GREETING": None, "ENTERED": "yes"}
    assert results["cached"] is False, "a cache of a step is in the image"
    assert results["user"] == "1000"
    assert results["directory"] == "/srv"


def test_packages_come_from_requirements_and_from_a_project(client: Client) -> None:
    results = client.run("image_installs.py", timeout=BUILD_SECONDS, HOW="files").results
    assert (results["six"], results["toml"], results["iniconfig"]) == ("1.17.0", "0.10.2", "2.0.0")


@pytest.mark.once
def test_packages_come_from_poetry(client: Client) -> None:
    # Without dependencies: not every package index has what poetry asks for. The step must end well all the same.
    results = client.run("image_installs.py", timeout=BUILD_SECONDS, HOW="poetry").results
    assert "poetry-core" in results


@pytest.mark.only("has_uv")
def test_packages_come_from_uv(client: Client) -> None:
    results = client.run("image_installs.py", timeout=BUILD_SECONDS, HOW="uv").results
    assert (results["six"], results["iniconfig"]) == ("1.17.0", "2.0.0")


@pytest.mark.only("has_uv")
def test_a_project_is_synced_by_uv(client: Client) -> None:
    results = client.run("image_installs.py", timeout=BUILD_SECONDS, HOW="uv sync").results
    assert (results["six"], results["toml"]) == ("1.17.0", "0.10.2")


def test_settings_of_an_image_and_of_its_build_function_hold(client: Client) -> None:
    results = client.run("image_imports.py", timeout=BUILD_SECONDS).results
    assert results == {"package": "iniconfig", "entered": "yes", "directory": "/work", "built": "built built "}


def test_secrets_of_build_steps_stay_out_of_images_keys_and_records(client: Client) -> None:
    mark, token = uuid.uuid4().hex, f"secret-{uuid.uuid4().hex}"
    first = client.run("image_secrets.py", timeout=BUILD_SECONDS, MARK=mark, TOKEN=token)
    assert first.results == {"lengths": [len(token)] * 2, "in environment": False, "in files": []}
    assert f"commands built {mark}" in first.output and "function built something" in first.output
    assert token not in first.output, "the value is in the build's log"
    again = client.run("image_secrets.py", timeout=BUILD_SECONDS, MARK=mark, TOKEN=f"{token}-changed")
    assert "commands built" not in again.output, "a new value built the image again"
    assert "function built" not in again.output, "a new value ran the build function again"
    records = [path for path in client.server.data_dir.glob("**/*.db*") if path.is_file()]
    assert records, "there is no database to look into"
    for path in [*records, client.server.log_path]:
        assert token.encode() not in path.read_bytes(), f"{path} has the secret in clear"


@pytest.mark.once
def test_force_builds_anew_and_is_found_afterwards(client: Client) -> None:
    mark = uuid.uuid4().hex
    first = client.run("image_forced.py", timeout=BUILD_SECONDS, MARK=mark).results["made"]
    forced = client.run("image_forced.py", timeout=BUILD_SECONDS, MARK=mark, FORCE="1").results["made"]
    assert forced != first, "nothing was built"
    after = client.run("image_forced.py", timeout=BUILD_SECONDS, MARK=mark).results["made"]
    assert after == forced, "what was built by force is not what a later run gets"


@pytest.mark.once
def test_a_build_that_nobody_waits_for_is_given_up(client: Client) -> None:
    mark = uuid.uuid4().hex
    before = client.server.traces()
    running = client.begin_run("image_slow_step.py", MARK=mark)
    try:
        running.wait_for_line(f"step {mark} began", 60)
        began = time.monotonic()
    finally:
        running.end()
    client.server.assert_no_traces(but=before, seconds=30)
    assert time.monotonic() - began > 5, "a client that lost its connection had no time to come back"


@pytest.mark.only("has_image_build")
def test_an_image_is_published_under_a_name_and_found_by_it(client: Client) -> None:
    name = f"named-{uuid.uuid4().hex[:8]}"
    results = client.python("image_by_name.py", timeout=BUILD_SECONDS, NAME=name).results
    assert results["made"] == "made\n"
    listed = json.loads(client.modal("image", "names", "list", "--prefix", name, "--json").output)
    assert [(item["tag"], item["image_id"]) for item in listed] == [(f"{name}:v1", results["id"])]
    history = json.loads(client.modal("image", "names", "history", f"{name}:v1", "--json").output)
    assert [item["image_id"] for item in history] == [results["id"]]
    client.modal("image", "names", "delete", f"{name}:v1", "--yes")
    gone = client.python("image_by_name.py", check=False, NAME=name, LOOK="only")
    assert gone.code != 0 and f"{name}:v1" in gone.flat, str(gone)


@pytest.mark.only("has_image_id")
def test_an_image_is_built_without_an_app_and_found_by_its_id(client: Client) -> None:
    results = client.python("image_by_id.py", timeout=BUILD_SECONDS).results
    assert results == {"made": "made\n", "same": True, "scratch": "im-" if client.version.has_image_build else None}


@pytest.mark.only("has_add_local")
def test_python_packages_are_added_with_and_without_a_copy(client: Client) -> None:
    results = client.run("image_python_source.py", timeout=BUILD_SECONDS).results
    assert results == {"mounted": "from the mount", "at build": "from the layer", "files": ["__init__.py", "part.py"]}


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


def test_large_files_links_and_modes_of_a_local_directory_arrive(client: Client) -> None:
    results = client.run("mount_files.py").results
    assert results["names"] == ["large", "link", "private", "run.sh"]
    assert results["large"] == results["expected"]
    assert results["ran"] == results["linked"] == "ran\n"
    assert results["private"] == "mine"


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
