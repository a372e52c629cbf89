"""An image from a Dockerfile with every instruction, several stages and a context."""

import json
import os
from pathlib import Path

import modal

CONTEXT = Path(__file__).parent / "dockerfile"
NAMES = ["copied/made", "files/first.txt", "files/sub/deep.txt", "note.txt", "inline/EOF", "inline/PLAIN", "script", "cache", "shell", "exec"]

if not modal.is_local():
    image = modal.Image.debian_slim()
elif hasattr(modal.Image, "add_local_dir"):
    image = modal.Image.from_dockerfile(CONTEXT / "Dockerfile", context_dir=CONTEXT)
else:
    files = modal.Mount.from_local_dir(CONTEXT, remote_path="/")
    image = modal.Image.from_dockerfile(CONTEXT / "Dockerfile", context_mount=files)
app = modal.App("image-dockerfile", image=image)


@app.function()
def inspect():
    owned = os.stat("/srv/owned.txt")
    return {
        "files": {name: open(f"/srv/{name}").read() for name in NAMES},
        "ignored": os.path.exists("/srv/files/ignored.txt"),
        "owned": [owned.st_uid, owned.st_gid, oct(owned.st_mode & 0o777)],
        "environment": {name: os.environ.get(name) for name in ["GREETED", "NEXT", "GREETING", "ENTERED"]},
        "cached": os.path.exists("/var/cache/kept/x"),
        "made": open("/made").read(),
        "user": open("/tmp/user").read().strip(),
        "directory": os.getcwd(),
    }


@app.local_entrypoint()
def main():
    print("RESULT " + json.dumps(inspect.remote()))
