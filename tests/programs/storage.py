"""Containers that write, commit and are built while the store is looked after, or has no space left."""

import hashlib
import json
import os

import modal

MARK = os.environ.get("MARK", "")
NOISE = int(os.environ.get("NOISE", "3000000"))

volume = modal.Volume.from_name(os.environ.get("VOLUME", "storage"), create_if_missing=True)
image = modal.Image.debian_slim(python_version="3.11")
if MARK:
    image = image.run_commands(f"echo {MARK} > /mark && head -c {NOISE} /dev/urandom > /noise", "cp /noise /copy")
app = modal.App("storage", image=image)


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def digests():
    return {name: digest(f"/vol/{name}") for name in sorted(os.listdir("/vol"))}


@app.function(volumes={"/vol": volume}, timeout=500)
def write(first, rounds, size, busy=False):
    """Commits again and again. Few contents, so that most of them are somebody's garbage by then.

    A mount that is in use keeps its files: what is committed is a copy.
    """
    held = os.open("/vol", os.O_RDONLY) if busy else None
    for number in range(first, first + rounds):
        with open(f"/vol/file-{number % 4}", "wb") as file:
            file.write(bytes([number * 7 % 5]) * size)
        volume.commit()
    if held is not None:
        os.close(held)
    return digests()


@app.function(volumes={"/vol": volume})
def look():
    return digests()


@app.function()
def built():
    return [open("/mark").read().strip(), digest("/noise") == digest("/copy")]


def report(**seen):
    print("RESULT " + json.dumps(seen))


@app.local_entrypoint()
def storm(rounds: int = 30):
    written = write.remote(0, rounds, 300_000)
    report(written=written, seen=look.remote(), built=built.remote())


@app.local_entrypoint()
def commit(size: int):
    try:
        report(written=write.remote(0, 1, size, busy=True), error=None)
    except Exception as error:
        report(written=None, error=f"{type(error).__name__}: {error}")


@app.local_entrypoint()
def saw():
    report(seen=look.remote())


@app.local_entrypoint()
def image_built():
    report(built=built.remote())
