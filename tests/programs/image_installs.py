"""Packages by each way of installing them; HOW chooses one."""

import importlib.metadata
import json
import os
from pathlib import Path

import modal

PROJECT = Path(__file__).parent / "project"
HOW = os.environ.get("HOW", "")
base = modal.Image.debian_slim(python_version="3.11")
images = {
    "files": lambda: base.pip_install_from_requirements(str(PROJECT / "requirements.txt")).pip_install_from_pyproject(
        str(PROJECT / "pyproject.toml"), optional_dependencies=["more"]
    ),
    "poetry": lambda: base.poetry_install_from_file(str(PROJECT / "poetry" / "pyproject.toml"), ignore_lockfile=True),
    "uv": lambda: base.uv_pip_install("six==1.17.0", requirements=[str(PROJECT / "requirements.txt")]),
    "uv sync": lambda: base.uv_sync(str(PROJECT), extras=["more"]),
}
app = modal.App("image-installs", image=images[HOW]() if HOW else base)


@app.function()
def inspect():
    found = {}
    for name in ["six", "toml", "iniconfig", "poetry-core"]:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


@app.local_entrypoint()
def main():
    print("RESULT " + json.dumps(inspect.remote()))
