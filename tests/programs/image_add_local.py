"""Local files as the newer clients spell it: copied into layers, and put beside the container at its start."""

import json
import os
import subprocess
from pathlib import Path

import modal

FILES = Path(__file__).parent / "files"
image = (
    modal.Image.debian_slim(python_version="3.11")
    .add_local_file(FILES / "note.txt", "/srv/note.txt", copy=True)
    .add_local_dir(FILES, "/srv/files", copy=True)
    .run_commands("cat /srv/note.txt /srv/files/sub/inner.txt > /srv/both")
    .add_local_file(FILES / "note.txt", "/late/note.txt")
    .add_local_dir(FILES, "/late/files")
)
app = modal.App("image-add-local", image=image)


@app.function()
def inspect():
    return {
        "both": open("/srv/both").read(),
        "names": sorted(os.path.join(d, n) for d, _, names in os.walk("/srv/files") for n in names),
        "ran": subprocess.run(["/srv/files/run.sh"], capture_output=True, text=True).stdout,
        "late": open("/late/note.txt").read() + open("/late/files/sub/inner.txt").read(),
    }


@app.local_entrypoint()
def main():
    print("RESULT " + json.dumps(inspect.remote()))
