"""Every way in which a function can die. Each entrypoint reports what the caller got."""

import json
import os
import signal
import sys
import time

import modal

app = modal.App("deaths", image=modal.Image.debian_slim(python_version="3.11"))


@app.function()
def exits():
    sys.exit(5)


@app.function()
def exits_hard():
    print("last words")
    sys.stdout.flush()
    os._exit(3)


@app.function()
def kills_itself():
    os.kill(os.getpid(), signal.SIGKILL)


@app.function()
def segfaults():
    os.kill(os.getpid(), signal.SIGSEGV)


@app.function(memory=(128, 300))
def eats_memory():
    return len(b"x" * (900 << 20))


@app.function(timeout=5)
def oversleeps():
    time.sleep(120)


@app.function()
def answers():
    return "still here"


@app.local_entrypoint()
def main(name: str):
    death = globals()[name]
    began = time.monotonic()
    try:
        death.remote()
        error = None
    except BaseException as raised:
        error = raised
    names = [kind.__name__ for kind in type(error).__mro__]
    took = time.monotonic() - began
    print("RESULT " + json.dumps({"types": names, "text": str(error), "seconds": took, "after": answers.remote()}))
