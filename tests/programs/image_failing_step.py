"""A step that prints, then fails with exit code 7. STEP chooses the kind of failure."""

import os

import modal

STEP = os.environ.get("STEP", "command")
base = modal.Image.debian_slim(python_version="3.11")


def raise_at_build():
    print("the build function began")
    raise RuntimeError("the download broke off")


def image():
    if STEP == "command":
        return base.run_commands("echo the step began && touch /half-done && sh -c 'exit 7'")
    if STEP == "package":
        return base.pip_install("homeport-there-is-no-such-package==9.9.9")
    if STEP == "function":
        return base.run_function(raise_at_build)
    return base.run_commands("test ! -e /half-done && echo a clean start")


app = modal.App("image-failing-step", image=image())


@app.function()
def f():
    return "ran"


@app.local_entrypoint()
def main():
    print(f.remote())
