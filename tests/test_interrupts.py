"""What happens to containers when the user or the user's machine goes away."""

import signal
import time

import pytest

from harness.client import Client
from harness.waiting import wait_for


def test_control_c_ends_the_containers_at_once(client: Client) -> None:
    running = client.begin_run("sleeping.py::main")
    try:
        running.wait_for_line("asleep", 60)
        assert client.server.containers(), "the function runs, but no container process is to be seen"
        running.signal(signal.SIGINT)
        wait_for("end of the containers", lambda: not client.server.containers(), 10)
        ended = running.wait(30)
        assert "slept" not in ended.output
    finally:
        running.end()


def test_a_detached_app_outlives_its_client(client: Client) -> None:
    started = client.begin("-m", "modal", "run", "--detach", "sleeping.py::main", "--seconds", "12")
    try:
        started.wait_for_line("asleep", 60)
        started.signal(signal.SIGKILL)
        started.wait(10)
        time.sleep(3)
        assert client.server.containers(), "the container ended together with its client"
    finally:
        started.end()
    wait_for("end of the detached call", lambda: not client.server.containers(), 120)


def test_a_spawned_call_of_a_detached_run_can_be_read_later(client: Client) -> None:
    left = client.modal("run", "--detach", "sleeping.py::leave", "--seconds", "5")
    call = left.output.split("CALL ")[1].split()[0]
    read = "import sys, modal; print('GOT', modal.functions.FunctionCall.from_id(sys.argv[1]).get(timeout=60))"
    assert "GOT 5" in client.python("-c", read, call).output


@pytest.mark.once
def test_an_ephemeral_app_whose_client_vanished_is_ended(client: Client) -> None:
    running = client.begin_run("sleeping.py::main")
    try:
        running.wait_for_line("asleep", 60)
        running.signal(signal.SIGKILL)
        running.wait(10)
        wait_for("end of the abandoned app's containers", lambda: not client.server.containers(), 150, pause=1)
    finally:
        running.end()
