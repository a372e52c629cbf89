"""What a server can leave on a machine: processes, mounts, cgroups, network devices, packet filter tables.

Everything is found by the server's tag, which all its kernel objects have in their names, or by its data directory.
Other servers on the same machine don't disturb.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import FrozenSet, List

import blake3

from .waiting import wait_until_empty


def tag_of(data_dir: Path) -> str:
    """What the names of all kernel objects of the server on this directory have in common.

    The same computation as in the server, so that a test finds what a killed server left without asking it.
    """
    hashed = 0x811C9DC5
    for byte in blake3.blake3(os.fsencode(data_dir.resolve())).hexdigest()[:8].encode():
        hashed = ((hashed ^ byte) * 0x01000193) & 0xFFFFFFFF
    return f"{(hashed >> 24) ^ (hashed & 0x00FFFFFF):06x}"


def containers(tag: str) -> List[str]:
    """The processes in the server's containers and build steps, each as `PID COMMAND`."""
    found = []
    for process in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            if f"homeport-{tag}" in Path(f"/proc/{process}/cgroup").read_text():
                found.append(f"{process} {_command(process)}")
        except OSError:  # it ended while we looked
            continue
    return found


def traces(tag: str, data_dir: Path) -> FrozenSet[str]:
    """Everything that a server with this tag and data directory has on the machine now, apart from its own process."""
    found = {f"process {process}" for process in containers(tag)}
    found |= {f"process {process}" for process in _working_in(data_dir)}
    # The data directory's own file system, where it has one, stays like a disk.
    mounts = [mount for mount in mounts_of(os.getpid()) if mount != str(data_dir)]
    found |= {f"mount {mount}" for mount in mounts if str(data_dir) in mount or tag in mount}
    for directory, below, _ in os.walk("/sys/fs/cgroup"):
        found |= {f"cgroup {os.path.join(directory, name)}" for name in below if tag in os.path.join(directory, name)}
    found |= {f"network device {name}" for name in os.listdir("/sys/class/net") if name.startswith(f"hp{tag}")}
    tables = json.loads(_output("nft", "--json", "list", "tables"))["nftables"]
    found |= {f"filter table {item['table']['name']}" for item in tables if tag in item.get("table", {}).get("name", "")}
    names = Path("/run/netns")
    found |= {f"network namespace {entry.name}" for entry in (names.iterdir() if names.is_dir() else []) if tag in entry.name}
    return frozenset(found)


def assert_no_traces(tag: str, data_dir: Path, but: FrozenSet[str] = frozenset(), seconds: float = 10) -> None:
    """Fails with a list of what is still there after `seconds`, apart from `but`."""
    wait_until_empty("traces of the server", lambda: sorted(traces(tag, data_dir) - but), seconds, pause=0.3)


def mounts_of(pid: int) -> List[str]:
    """The mount points that a process sees."""
    return [line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]


def _working_in(data_dir: Path) -> List[str]:
    """Processes whose root or working directory lies in the data directory, as of a build or a bootstrap."""
    found = []
    for process in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            places = [os.readlink(f"/proc/{process}/{link}") for link in ("root", "cwd")]
            if any(place.startswith(str(data_dir)) for place in places):
                found.append(f"{process} {_command(process)}")
        except OSError:
            continue
    return found


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
