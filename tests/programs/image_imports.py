"""Imports that only the image has, settings of the image, and build functions with settings of their own."""

import json
import os

import modal


def at_build(text, *, times):
    open("/built", "w").write(text * times)


image = (
    modal.Image.debian_slim(python_version="3.11")
    .pip_install("iniconfig==2.0.0")
    .shell(["/bin/bash", "-c"])
    .run_commands("mkdir -p /work && [[ -d /work ]] && printf '#!/bin/sh\\nENTERED=yes exec \"$@\"\\n' > /entry && chmod +x /entry")
    .entrypoint(["/entry"])
    .workdir("/work")
    .run_function(at_build, args=("built ",), kwargs={"times": 2}, cpu=1, memory=512, timeout=60, gpu=None)
)
app = modal.App("image-imports", image=image)

with image.imports():
    import iniconfig


@app.function()
def inspect():
    return {
        "package": iniconfig.__name__,
        "entered": os.environ.get("ENTERED"),
        "directory": os.getcwd(),
        "built": open("/built").read(),
    }


@app.local_entrypoint()
def main():
    print("RESULT " + json.dumps(inspect.remote()))
