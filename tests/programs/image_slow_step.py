"""A build step that takes a minute, unless QUICK is set; MARK makes it a new one."""

import os

import modal

MARK = os.environ.get("MARK", "")
seconds = 0 if os.environ.get("QUICK") else 60
image = modal.Image.debian_slim(python_version="3.11").run_commands(
    f"echo step {MARK} began && touch /half-done && sleep {seconds}"
)
app = modal.App("image-slow-step", image=image)


@app.function()
def f():
    return "ran"


@app.local_entrypoint()
def main():
    print(f.remote())
