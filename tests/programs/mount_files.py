"""A local directory beside the container: a large file, a link, modes, and what a rule ignores. MARK makes it a new one."""

import hashlib
import json
import os
import tempfile
from pathlib import Path

import modal

LARGE = 9 << 20
base = modal.Image.debian_slim(python_version="3.11")
local = Path(tempfile.gettempdir())

if modal.is_local():
    local = Path(tempfile.mkdtemp())
    (local / "large").write_bytes(os.urandom(LARGE))
    (local / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (local / "run.sh").chmod(0o755)
    (local / "private").write_text("mine")
    (local / "private").chmod(0o600)
    (local / "link").symlink_to("run.sh")
    (local / "skipped.log").write_text("not wanted")

if hasattr(modal.Image, "add_local_dir"):
    app = modal.App("mount-files", image=base.add_local_dir(local, "/files", ignore=["*.log"]))
    mounts = {}
else:
    app = modal.App("mount-files", image=base)
    wanted = lambda path: not path.endswith(".log")  # noqa: E731
    mounts = {"mounts": [modal.Mount.from_local_dir(local, remote_path="/files", condition=wanted)]}


@app.function(**mounts)
def inspect():
    return {
        "names": sorted(os.listdir("/files")),
        "large": hashlib.sha256(open("/files/large", "rb").read()).hexdigest(),
        "ran": os.popen("/files/run.sh").read(),
        "linked": os.popen("/files/link").read(),
        "private": open("/files/private").read(),
    }


@app.local_entrypoint()
def main():
    expected = hashlib.sha256((local / "large").read_bytes()).hexdigest()
    print("RESULT " + json.dumps({**inspect.remote(), "expected": expected}))
