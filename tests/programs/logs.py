"""Much output, and output over time."""

import sys
import time

import modal

app = modal.App("logs", image=modal.Image.debian_slim(python_version="3.11"))


@app.function()
def many(lines):
    for number in range(lines):
        print(f"line {number:06d} of the output")


@app.function()
def slowly():
    print("early line")
    time.sleep(6)
    print("late line")


@app.function()
def both():
    for number in range(50):
        print(f"out {number}")
        print(f"err {number}", file=sys.stderr)
    print("no newline at the end", end="")


@app.local_entrypoint()
def flood(lines: int = 10000):
    many.remote(lines)


@app.local_entrypoint()
def live():
    slowly.remote()
    print("call is over")


@app.local_entrypoint()
def streams():
    both.remote()
