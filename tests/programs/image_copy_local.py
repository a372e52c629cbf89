"""Local files in image layers, as the older clients spell it."""

import json
import os
import subprocess
from pathlib import Path

import modal

FILES = Path(__file__).parent / "files"
image = (
    modal.Image.debian_slim(python_version="3.11")
    .copy_local_file(FILES / "note.txt", "/srv/note.txt")
    .copy_local_dir(FILES, "/srv/files")
    .run_commands("cat /srv/note.txt /srv/files/sub/inner.txt > /srv/both")
)
app = modal.App("image-copy-local", image=image)


@app.function()
def inspect():
    return {
        "both": open("/srv/both").read(),
        "names": sorted(os.path.join(d, n) for d, _, names in os.walk("/srv/files") for n in names),
        "ran": subprocess.run(["/srv/files/run.sh"], capture_output=True, text=True).stdout,
    }


@app.local_entrypoint()
def main():
    print("RESULT " + json.dumps(inspect.remote()))
