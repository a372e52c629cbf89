"""What code in a container can see and reach."""

import contextlib
import os
import socket
import subprocess
import threading
from typing import Iterator, List

import pytest

from harness.client import Client
from harness.server import Server

# Addresses for documentation: no real network has them.
OUTSIDE_HOST, OUTSIDE_PEER = "198.51.100.1", "198.51.100.2"


def test_a_container_has_its_own_world_and_no_powers(client: Client) -> None:
    seen = client.run("isolation.py::main").results
    for name, namespace in seen["namespaces"].items():
        if name != "user":
            assert namespace != os.readlink(f"/proc/self/ns/{name}"), f"the container shares the host's {name} namespace"
    assert seen["status"]["NoNewPrivs"] == "1"
    assert seen["status"]["Seccomp"] == "2", "no seccomp filter"
    powers = int(seen["status"]["CapBnd"], 16)
    for name, number in {"sys_admin": 21, "net_admin": 12, "sys_module": 16, "sys_ptrace": 19, "sys_rawio": 17}.items():
        assert not powers >> number & 1, f"the container may have cap_{name}"
    assert seen["processes"] < 10, "the container sees processes that are not its own"
    assert seen["hostname"] != socket.gethostname()
    # A setting that the runtime made read-only, or doesn't show at all, is as good as a forbidden one.
    assert set(seen["attempts"].values()) <= {"PermissionError", "OSError", "FileNotFoundError"}, seen["attempts"]
    assert seen["attempts"]["mount a file system"] == "PermissionError"
    assert seen["attempts"]["load a kernel module"] == "PermissionError"
    assert seen["leaked"] is False, "a file of one container was seen by the next"
    assert "MODAL_TOKEN_SECRET" not in seen["environment"]


@pytest.mark.once
def test_root_in_a_container_is_nobody_outside(client: Client) -> None:
    seen = client.run("isolation.py::main").results
    allowed = open("/proc/sys/user/max_user_namespaces").read().strip() != "0"
    assert allowed, "this machine forbids user namespaces: the test can't tell anything here"
    assert seen["uid_map"][:1] == ["0"] and seen["uid_map"][1] != "0", seen["uid_map"]


@pytest.mark.once
def test_services_of_the_host_are_out_of_reach_and_the_outside_is_not(client: Client, server: Server) -> None:
    with contextlib.ExitStack() as stack:
        host_service = stack.enter_context(greeting_service("127.0.0.1"))
        everywhere = stack.enter_context(greeting_service("0.0.0.0"))
        outside = stack.enter_context(outside_network())
        addresses = [f"127.0.0.1:{host_service}", f"127.0.0.1:{server.port}", f"{OUTSIDE_PEER}:{outside}"]
        gateways = [f"{address}:{everywhere}" for address in addresses_of_bridges()]
        assert gateways, "no bridge of the server's found"
        found = client.run("isolation.py::reach", "--addresses", ",".join(addresses + gateways)).results

    assert not found[addresses[0]]["connected"], "a container reached a service on the host's loopback"
    assert not found[addresses[1]]["connected"], "a container reached the server's own port without its listener"
    for gateway in gateways:
        assert not found[gateway]["connected"], f"a container reached a service of the host at {gateway}"
    assert found[addresses[2]]["connected"], found[addresses[2]]
    assert found[addresses[2]]["answer"] == OUTSIDE_HOST, "connections to the outside are not translated"


@contextlib.contextmanager
def greeting_service(address: str) -> Iterator[int]:
    """Tells everybody who connects the address that it sees of them."""
    with socket.create_server((address, 0)) as listener:
        threading.Thread(target=greet, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def greet(listener: socket.socket) -> None:
    while True:
        try:
            connection, (address, _) = listener.accept()
        except OSError:
            return
        with connection:
            connection.sendall(address.encode())


GREETER = f"""
import socket
listener = socket.create_server(("{OUTSIDE_PEER}", 8077))
print("listens", flush=True)
while True:
    connection, (address, _) = listener.accept()
    connection.sendall(address.encode())
    connection.close()
"""


@contextlib.contextmanager
def outside_network() -> Iterator[int]:
    """A network namespace that stands for the world: reachable through the host, knowing no way back to containers."""
    name = f"outside{os.getpid()}"
    near, far = f"out{os.getpid() % 10**6}a", f"out{os.getpid() % 10**6}b"
    run("ip", "netns", "add", name)
    try:
        run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        run("ip", "address", "add", f"{OUTSIDE_HOST}/30", "dev", near)
        run("ip", "link", "set", near, "up")
        run("ip", "-n", name, "address", "add", f"{OUTSIDE_PEER}/30", "dev", far)
        run("ip", "-n", name, "link", "set", far, "up")
        greeter = subprocess.Popen(
            ["ip", "netns", "exec", name, "python3", "-c", GREETER], stdout=subprocess.PIPE, text=True
        )
        try:
            assert greeter.stdout is not None
            assert greeter.stdout.readline() == "listens\n"
            yield 8077
        finally:
            greeter.kill()
            greeter.wait()
    finally:
        run("ip", "netns", "delete", name)


def addresses_of_bridges() -> List[str]:
    lines = run("ip", "-4", "-oneline", "address", "show", "type", "bridge").splitlines()
    return [line.split("inet ")[1].split("/")[0] for line in lines]


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
