"""Packages of the user: one copied into a layer, one beside the container."""

import json
import os
import sys
from pathlib import Path

import modal

sys.path.append(str(Path(__file__).parent / "packages"))


def at_build():
    import layered

    open("/at-build", "w").write(layered.WHERE)


image = (
    modal.Image.debian_slim(python_version="3.11")
    .add_local_python_source("layered", copy=True)
    .run_function(at_build)
    .add_local_python_source("mounted")
)
app = modal.App("image-python-source", image=image)


@app.function()
def inspect():
    import mounted

    files = os.listdir(os.path.dirname(mounted.__file__))
    return {
        "mounted": mounted.WHERE,
        "at build": open("/at-build").read(),
        "files": sorted(name for name in files if name != "__pycache__"),
    }


@app.local_entrypoint()
def main():
    print("RESULT " + json.dumps(inspect.remote()))
