"""What goes wrong in functions and around them. Each entrypoint reports what the caller got."""

import inspect
import json
import os
import sys
import threading
import time
import types

import modal

image = modal.Image.debian_slim(python_version="3.11")
app = modal.App("faults", image=image)


@app.function()
def answers():
    return "still here"


@app.function()
def returns_a_lock():
    return threading.Lock()


@app.function()
def takes(value):
    return str(value)


@app.function()
def returns_a_stranger(raises):
    """A value, or an exception, whose class only the container has."""
    module = sys.modules["only_there"] = types.ModuleType("only_there")
    exec("class Thing:\n    pass\nclass Wrong(Exception):\n    pass", module.__dict__)
    if raises:
        raise module.Wrong("a stranger")
    return module.Thing()


@app.function(memory=(128, 600))
def forks():
    """Forks until it can't, and leaves all of them."""
    count = 0
    while True:
        try:
            child = os.fork()
        except OSError as error:
            return count, str(error)
        if child == 0:
            time.sleep(600)
            os._exit(0)
        count += 1


@app.function()
def floods(seconds):
    block = b"x" * 1023 + b"\n"
    block *= 64
    end = time.monotonic() + seconds
    written = 0
    while time.monotonic() < end:
        os.write(1, block)
        written += len(block)
    return written


@app.function()
def always_fails(x):
    raise ValueError(x)


@app.function()
def passes(x):
    return x


def report(**values):
    print("RESULT " + json.dumps(values), flush=True)


def outcome(call):
    try:
        return ["returned", str(call())]
    except BaseException as error:
        return [kind.__name__ for kind in type(error).__mro__][:-1] + [str(error)]


@app.local_entrypoint()
def strangers():
    report(result=outcome(returns_a_lock.remote), argument=outcome(lambda: takes.remote(threading.Lock())))
    report(stranger=outcome(lambda: returns_a_stranger.remote(False)))
    report(raised=outcome(lambda: returns_a_stranger.remote(True)), after=answers.remote())


@app.local_entrypoint()
def bomb():
    call = forks.spawn()
    report(beside=answers.remote(), bomb=outcome(lambda: call.get(timeout=90)), after=answers.remote())


def flood():
    """Without an output of its own, so that only the server has the log."""
    with app.run():
        answers.remote()
        call = floods.spawn(6)
        time.sleep(1)
        took = []
        for _ in range(10):
            began = time.monotonic()
            answers.remote()
            took.append(time.monotonic() - began)
        report(took=sorted(took), written=call.get(timeout=60))


@app.local_entrypoint()
def failures(count: int):
    results = list(always_fails.map(range(count), return_exceptions=True))
    # Newer clients wrap what they return.
    texts = [str(getattr(result, "exc", result)) for result in results]
    report(count=len(results), right=texts == [str(n) for n in range(count)], after=answers.remote())


@app.local_entrypoint()
def many(count: int):
    began = time.monotonic()
    total = 0
    for n, value in enumerate(passes.map(range(count))):
        assert n == value, (n, value)
        total += 1
        if total == 200:
            report(some=total)
    report(total=total, seconds=time.monotonic() - began)


if __name__ == "__main__":
    flood()
