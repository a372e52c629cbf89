"""Fills /pkg with one version of the client, and with its pinned dependencies where the image has none.

Arguments: the client's version, and the image builder version whose dependencies are wanted, or "-".
"""

import compileall
import importlib.metadata
import os
import pathlib
import re
import shutil
import subprocess
import sys

PACKAGES = pathlib.Path("/pkg")
# Not a name that a program could import by accident.
DEPENDENCIES = PACKAGES / ".dependencies"


def install(target, *arguments):
    options = ["--quiet", "--no-compile", "--no-cache-dir", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), *arguments]
    subprocess.run(command, check=True, env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore"})


def install_dependencies(version, pins):
    """The pinned versions, or those that the client accepts where an index lacks one of the pins."""
    try:
        install(DEPENDENCIES, "--no-deps", "--requirement", str(pins))
    except subprocess.CalledProcessError:
        print(f"{pins.name} can't be had as it is: taking what modal {version} itself asks for")
        shutil.rmtree(DEPENDENCIES, ignore_errors=True)
        install(DEPENDENCIES, f"modal=={version}")
        # The client itself is beside them already.
        for name in ("modal", "modal_proto", "modal_version", "synchronicity"):
            shutil.rmtree(DEPENDENCIES / name, ignore_errors=True)


def requirement(name):
    distribution = next(iter(importlib.metadata.distributions(name="modal", path=[str(PACKAGES)])))
    for line in distribution.requires or []:
        if re.match(rf"{name}\b", line):
            return line.split(";")[0].replace("(", "").replace(")", "").replace(" ", "")
    raise SystemExit(f"the client does not require {name}")


def main():
    version, builder = sys.argv[1:]
    install(PACKAGES, "--no-deps", f"modal=={version}")
    install(PACKAGES, "--no-deps", "--upgrade", requirement("synchronicity"))
    if builder != "-":
        pins = PACKAGES / "modal" / "builder" / f"{builder}.txt"
        install_dependencies(version, pins)
        # Behind the image's own packages, so that it never hides one of them.
        customize = f"import sys\n\nsys.path.append({str(DEPENDENCIES)!r})\n"
        (PACKAGES / "sitecustomize.py").write_text(customize)
    compileall.compile_dir(PACKAGES, quiet=2, workers=0)


main()
