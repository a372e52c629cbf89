"""Fills /pkg with one version of the client, and with its pinned dependencies where the image has none.

Arguments: the client's version, and the image builder version whose dependencies are wanted, or "-".
"""

import compileall
import importlib.metadata
import pathlib
import re
import subprocess
import sys

PACKAGES = pathlib.Path("/pkg")
# Not a name that a program could import by accident.
DEPENDENCIES = PACKAGES / ".dependencies"


def install(target, *arguments):
    options = ["--quiet", "--no-deps", "--no-compile", "--no-cache-dir", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), *arguments]
    subprocess.run(command, check=True)


def requirement(name):
    distribution = next(iter(importlib.metadata.distributions(name="modal", path=[str(PACKAGES)])))
    for line in distribution.requires or []:
        if re.match(rf"{name}\b", line):
            return line.split(";")[0].replace("(", "").replace(")", "").replace(" ", "")
    raise SystemExit(f"the client does not require {name}")


def main():
    version, builder = sys.argv[1:]
    install(PACKAGES, f"modal=={version}")
    install(PACKAGES, "--upgrade", requirement("synchronicity"))
    if builder != "-":
        pins = PACKAGES / "modal" / "builder" / f"{builder}.txt"
        install(DEPENDENCIES, "--requirement", str(pins))
        # Behind the image's own packages, so that it never hides one of them.
        customize = f"import sys\n\nsys.path.append({str(DEPENDENCIES)!r})\n"
        (PACKAGES / "sitecustomize.py").write_text(customize)
    compileall.compile_dir(PACKAGES, quiet=2, workers=0)


main()
