"""The server's own life: start, ports, data directories, crashes, end."""

import json
import signal
import socket
import subprocess
import uuid
from pathlib import Path

import pytest

from harness.client import Client
from harness.server import Server, homeport
from harness.waiting import wait_for


def test_a_server_starts_says_ready_and_ends_clean(own_server: Server) -> None:
    own_server.start()
    lines = [line for line in own_server.log().splitlines() if line.startswith("ready")]
    assert len(lines) == 1, f"not exactly one ready line: {lines}"
    own_server.stop()
    own_server.assert_no_traces(seconds=2)


def test_a_used_port_is_named(own_server: Server) -> None:
    with socket.create_server(("127.0.0.1", own_server.port)):
        run = subprocess.run(own_server.command(), capture_output=True, text=True, timeout=60)
    assert run.returncode not in (0, 101), run.stderr
    assert str(own_server.port) in run.stderr and "in use" in run.stderr.lower(), run.stderr


def test_a_second_server_on_the_same_data_directory_is_refused(own_server: Server, tmp_path: Path) -> None:
    own_server.start()
    second = Server(own_server.data_dir, tmp_path / "second.log")
    run = subprocess.run(second.command(), capture_output=True, text=True, timeout=60)
    assert run.returncode not in (0, 101), run.stderr
    assert str(own_server.data_dir) in run.stderr, run.stderr
    assert own_server.process is not None and own_server.process.poll() is None, "the first server ended"
    own_server.stop()


def test_commands_without_a_server_say_how_to_start_one(tmp_path: Path) -> None:
    run = homeport("env", data_dir=tmp_path / "nothing-here")
    assert run.returncode not in (0, 101)
    assert "homeport up" in run.stderr, run.stderr


def test_env_prints_what_a_shell_needs(client: Client, server: Server) -> None:
    printed = homeport("env", data_dir=server.data_dir)
    assert printed.returncode == 0, printed.stderr
    script = f'{printed.stdout}\nexec "$0" -m modal run hello.py'
    python = str(client.version.python)
    plain = client.environment(MODAL_SERVER_URL=None, MODAL_TOKEN_ID=None, MODAL_TOKEN_SECRET=None)
    where = Path(__file__).parent / "programs"
    run = subprocess.run(["sh", "-c", script, python], cwd=where, env=plain, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0 and "hello, harbour" in run.stdout, run.stdout + run.stderr


def test_doctor_reports_each_requirement(server: Server) -> None:
    run = homeport("doctor", "--json", data_dir=server.data_dir)
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.dumps(json.loads(run.stdout)).lower()
    for subject in ["kernel", "runc", "cgroup", "disk", "gpu"]:
        assert subject in report, f"doctor says nothing of {subject}: {run.stdout}"
    assert homeport("doctor", data_dir=server.data_dir).returncode == 0


def test_models_are_imported_listed_and_removed(server: Server, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    name = f"tests/{uuid.uuid4().hex[:8]}"
    imported = homeport("models", "import", str(model), "--as", name, data_dir=server.data_dir)
    assert imported.returncode == 0, imported.stderr
    assert name in homeport("models", "list", data_dir=server.data_dir).stdout
    assert homeport("models", "rm", name, data_dir=server.data_dir).returncode == 0
    assert name not in homeport("models", "list", data_dir=server.data_dir).stdout
    again = homeport("models", "rm", name, data_dir=server.data_dir)
    assert again.returncode not in (0, 101) and name in again.stderr, again.stderr


def test_sigterm_with_running_containers_ends_them(client: Client, server: Server) -> None:
    running = client.begin_run("sleeping.py::main")
    try:
        running.wait_for_line("asleep", 60)
        assert server.containers()
        server.stop()
        assert not server.containers(), "containers outlived the server"
    finally:
        running.end()
        server.kill()
        server.start("--gpu-fallback", "cpu")
    assert "hello, harbour" in client.run("hello.py").output


@pytest.mark.once
def test_a_server_killed_during_a_build_leaves_nothing_after_its_next_start(client: Client, server: Server) -> None:
    mark = uuid.uuid4().hex
    idle = server.traces()
    running = client.begin_run("image_slow_step.py", MARK=mark)
    try:
        running.wait_for_line(f"step {mark} began", 60)
        server.kill()
    finally:
        running.signal(signal.SIGKILL)
        running.wait(10)
        server.start("--gpu-fallback", "cpu")
    server.assert_no_traces(but=idle, seconds=20)
    run = client.run("image_slow_step.py", timeout=300, MARK=mark, QUICK="1")
    assert "ran" in run.output


@pytest.mark.once
def test_a_server_killed_during_a_call_fails_or_repeats_it_after_its_next_start(client: Client, server: Server) -> None:
    running = client.begin_run("sleeping.py::main", "--seconds", "300")
    try:
        running.wait_for_line("asleep", 60)
        before = set(server.containers())
        server.kill()
        server.start("--gpu-fallback", "cpu")
        wait_for("end of the old containers", lambda: not before & set(server.containers()), 10)
    finally:
        running.end()
        if server.process is None:
            server.start("--gpu-fallback", "cpu")
    assert "hello, harbour" in client.run("hello.py").output
