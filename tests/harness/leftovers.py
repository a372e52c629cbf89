"""What a server can leave on a machine: processes, namespaces, mounts, cgroups, network devices, packet filter tables."""

import json
import os
import subprocess
from dataclasses import dataclass, fields
from pathlib import Path
from typing import FrozenSet, List

from .waiting import wait_for


def container_processes() -> List[str]:
    """Processes that live in another pid namespace than this one, each as `PID COMMAND`."""
    own = os.readlink("/proc/self/ns/pid")
    found = []
    for process in _processes():
        try:
            if os.readlink(f"/proc/{process}/ns/pid") != own:
                found.append(f"{process} {_command(process)}")
        except OSError:  # it ended while we looked
            continue
    return found


def descendants(pid: int) -> List[int]:
    """All processes below `pid`."""
    children = {}
    for process in _processes():
        try:
            stat = Path(f"/proc/{process}/stat").read_text()
        except OSError:
            continue
        children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(process)
    found, left = [], [pid]
    while left:
        below = children.get(left.pop(), [])
        found += below
        left += below
    return found


def mounts_of(pid: int) -> List[str]:
    """The mount points that a process sees."""
    return [line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]


@dataclass(frozen=True)
class MachineState:
    """What is there now, as names."""

    processes: FrozenSet[str]
    network_namespaces: FrozenSet[str]
    mounts: FrozenSet[str]
    cgroups: FrozenSet[str]
    network_devices: FrozenSet[str]
    filter_tables: FrozenSet[str]

    def beyond(self, before: "MachineState") -> List[str]:
        """What is here and was not there before, one line for each thing."""
        return [
            f"{field.name}: {name}"
            for field in fields(self)
            for name in sorted(getattr(self, field.name) - getattr(before, field.name))
        ]


def machine_state() -> MachineState:
    devices = json.loads(_output("ip", "-json", "link"))
    tables = json.loads(_output("nft", "--json", "list", "tables"))["nftables"]
    return MachineState(
        processes=frozenset(container_processes()),
        network_namespaces=frozenset(_named_and_used_network_namespaces()),
        mounts=frozenset(mounts_of(os.getpid())),
        cgroups=frozenset(_cgroups()),
        network_devices=frozenset(device["ifname"] for device in devices),
        filter_tables=frozenset(f"{item['table']['family']} {item['table']['name']}" for item in tables if "table" in item),
    )


def assert_nothing_left(before: MachineState, seconds: float = 10) -> None:
    """Fails with a list of what is still there `seconds` after the end of whatever ran since `before`."""
    left: List[str] = []

    def clean() -> bool:
        left[:] = machine_state().beyond(before)
        return not left

    try:
        wait_for("clean machine", clean, seconds, pause=0.3)
    except AssertionError:
        raise AssertionError("left behind:\n" + "\n".join(left)) from None


def _named_and_used_network_namespaces() -> List[str]:
    named = Path("/run/netns")
    found = {f"name {entry.name}" for entry in named.iterdir()} if named.is_dir() else set()
    own = os.readlink("/proc/self/ns/net")
    for process in _processes():
        try:
            namespace = os.readlink(f"/proc/{process}/ns/net")
        except OSError:
            continue
        if namespace != own:
            found.add(namespace)
    return sorted(found)


def _cgroups() -> List[str]:
    found = []
    for directory, below, _ in os.walk("/sys/fs/cgroup"):
        found += [os.path.join(directory, name) for name in below]
    return found


def _processes() -> List[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
