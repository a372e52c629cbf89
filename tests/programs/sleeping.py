"""A call that takes long, for what happens when somebody loses patience."""

import time

import modal

app = modal.App("sleeping", image=modal.Image.debian_slim(python_version="3.11"))


@app.function()
def sleep(seconds):
    print("asleep")
    time.sleep(seconds)
    print("awake")
    return seconds


@app.local_entrypoint()
def main(seconds: float = 300):
    sleep.remote(seconds)
    print("slept")


@app.local_entrypoint()
def leave(seconds: float = 8):
    call = sleep.spawn(seconds)
    print("CALL", call.object_id)
