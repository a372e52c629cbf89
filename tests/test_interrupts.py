"""What happens to containers when the user or the user's machine goes away."""

import re
import signal
import time
from typing import Callable, List

import pytest

from harness.client import Client
from harness.waiting import wait_until_empty

Containers = Callable[[], List[str]]


@pytest.fixture
def own_containers(client: Client) -> Containers:
    """The containers of functions that came since the test began; a build may go on without its client."""
    before = {process.split()[0] for process in client.server.containers()}

    def came() -> List[str]:
        running = [process for process in client.server.containers() if "_container_entrypoint" in process]
        return [process for process in running if process.split()[0] not in before]

    return came


def test_control_c_ends_the_containers_at_once(client: Client, own_containers: Containers) -> None:
    running = client.begin_run("sleeping.py::main")
    try:
        running.wait_for_line("asleep", 60)
        assert own_containers(), "the function runs, but no container process is to be seen"
        running.signal(signal.SIGINT)
        wait_until_empty("containers", own_containers, 10)
        ended = running.wait(30)
        assert "slept" not in ended.output
    finally:
        running.end()


def test_a_detached_app_outlives_its_client_until_it_is_stopped(client: Client, own_containers: Containers) -> None:
    started = client.begin("-m", "modal", "run", "--detach", "sleeping.py::main")
    try:
        started.wait_for_line("asleep", 60)
        started.signal(signal.SIGKILL)
        started.wait(10)
        app = re.search(r"\bap-[A-Za-z0-9]{22}\b", started.output)
        assert app, started.output
        time.sleep(3)
        assert own_containers(), "the container ended together with its client"
        client.app_command("stop", app[0], by_name=False)
        wait_until_empty("containers", own_containers, 10)
    finally:
        started.end()


def test_a_spawned_call_of_a_detached_run_can_be_read_later(client: Client) -> None:
    left = client.modal("run", "--detach", "sleeping.py::leave", "--seconds", "5")
    call = left.output.split("CALL ")[1].split()[0]
    read = "import sys, modal; print('GOT', modal.functions.FunctionCall.from_id(sys.argv[1]).get(timeout=60))"
    assert "GOT 5" in client.python("-c", read, call).output


@pytest.mark.once
def test_an_ephemeral_app_whose_client_vanished_is_ended(client: Client, own_containers: Containers) -> None:
    running = client.begin_run("sleeping.py::main")
    try:
        running.wait_for_line("asleep", 60)
        running.signal(signal.SIGKILL)
        running.wait(10)
        wait_until_empty("containers", own_containers, 150, pause=1)
    finally:
        running.end()
