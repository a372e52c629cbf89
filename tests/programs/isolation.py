"""What code in a container sees of the machine, and what it can reach."""

import ctypes
import json
import os
import socket
import time

import modal

FINIT_MODULE = 313  # the number of the system call on x86-64

app = modal.App("isolation", image=modal.Image.debian_slim(python_version="3.11"))


@app.function()
def look():
    status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
    return {
        "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in ["mnt", "pid", "ipc", "uts", "net", "user"]},
        "uid_map": open("/proc/self/uid_map").read().split(),
        "status": {name: status[name].strip() for name in ["NoNewPrivs", "Seccomp", "CapBnd", "CapEff"]},
        "processes": len([name for name in os.listdir("/proc") if name.isdigit()]),
        "hostname": socket.gethostname(),
        "environment": sorted(os.environ),
    }


@app.function()
def connect(host, port):
    try:
        with socket.create_connection((host, port), timeout=4) as connection:
            return {"connected": True, "answer": connection.recv(100).decode()}
    except OSError as error:
        return {"connected": False, "error": repr(error)}


@app.function()
def resolve(name):
    return sorted({item[4][0] for item in socket.getaddrinfo(name, 443, proto=socket.IPPROTO_TCP)})


def mount_a_file_system():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", b"/mnt", b"tmpfs", 0, None) != 0:
        raise OSError(ctypes.get_errno(), "mount")


def load_a_kernel_module():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(FINIT_MODULE, -1, b"", 0) != 0:
        raise OSError(ctypes.get_errno(), "finit_module")


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


ESCAPES = {
    "mount a file system": mount_a_file_system,
    "write a kernel setting": lambda: write("/proc/sys/kernel/panic", "0"),
    "ask for a kernel action": lambda: write("/proc/sysrq-trigger", "h"),
    "make a disk device": lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(8, 0)),
    "set the clock": lambda: time.clock_settime(time.CLOCK_REALTIME, 0),
    "load a kernel module": load_a_kernel_module,
}


@app.function()
def try_to_escape():
    outcomes = {}
    for name, attempt in ESCAPES.items():
        try:
            attempt()
            outcomes[name] = "worked"
        except OSError as error:
            outcomes[name] = type(error).__name__
    return outcomes


@app.function()
def leave_a_file():
    with open("/root/left-behind", "w") as file:
        file.write("x")


@app.function()
def see_the_file():
    return os.path.exists("/root/left-behind")


@app.local_entrypoint()
def main():
    leave_a_file.remote()
    print("RESULT " + json.dumps({**look.remote(), "attempts": try_to_escape.remote(), "leaked": see_the_file.remote()}))


@app.local_entrypoint()
def reach(addresses: str):
    targets = [tuple(address.rsplit(":", 1)) for address in addresses.split(",")]
    found = list(connect.starmap([(host, int(port)) for host, port in targets]))
    print("RESULT " + json.dumps(dict(zip(addresses.split(","), found))))
