"""A deployment whose calls must survive the server. What ran is noted in a file that the test reads."""

import inspect
import json
import os
import sys
import time

import modal

NAME = os.environ.get("DEPLOYMENT", "survivors")
app = modal.App(NAME, image=modal.Image.debian_slim(python_version="3.11").env({"DEPLOYMENT": NAME}))
notes = modal.NetworkFileSystem.from_name("survivors", create_if_missing=True)
single = {"max_containers": 1} if "max_containers" in inspect.signature(app.function).parameters else {"concurrency_limit": 1}


@app.function(network_file_systems={"/notes": notes}, **single)
def slow(key, seconds):
    with open(f"/notes/{key}", "a") as file:
        file.write("began\n")
    time.sleep(seconds)
    with open(f"/notes/{key}", "a") as file:
        file.write("ended\n")
    return key


@app.function(network_file_systems={"/notes": notes})
def noted(key):
    path = f"/notes/{key}"
    return open(path).read().split() if os.path.exists(path) else []


@app.function()
def passes(x):
    return x


def report(**values):
    print("RESULT " + json.dumps(values), flush=True)


def function(name):
    find = getattr(modal.Function, "lookup", modal.Function.from_name)
    return find(NAME, name)


def outcome(call):
    try:
        return ["returned", call()]
    except BaseException as error:
        return [kind.__name__ for kind in type(error).__mro__][:-1] + [str(error)]


def spawn(run):
    """One call that is over, one that is cancelled, one that runs, one that waits."""
    calls = {}
    calls["over"] = function("slow").spawn(f"{run}-over", 0)
    calls["over"].get(timeout=60)
    calls["running"] = function("slow").spawn(f"{run}-running", 6)
    calls["cancelled"] = function("slow").spawn(f"{run}-cancelled", 0)
    calls["waiting"] = function("slow").spawn(f"{run}-waiting", 0)
    calls["cancelled"].cancel()
    while noted_by(run, "running") != ["began"]:
        time.sleep(0.1)
    report(calls={name: call.object_id for name, call in calls.items()})


def noted_by(run, name):
    return function("noted").remote(f"{run}-{name}")


def read(run, *ids):
    for pair in ids:
        name, call_id = pair.split("=")
        call = modal.functions.FunctionCall.from_id(call_id)
        report(**{name: outcome(lambda: call.get(timeout=90)), f"{name}_notes": noted_by(run, name)})


def spawn_one(run):
    call = function("slow").spawn(f"{run}-one", 0)
    report(result=call.get(timeout=60), call=call.object_id)


def read_one(call_id, timeout):
    began = time.monotonic()
    call = modal.functions.FunctionCall.from_id(call_id)
    patience = None if timeout == "none" else float(timeout)
    report(outcome=outcome(lambda: call.get(timeout=patience)), seconds=time.monotonic() - began)


def count_to(limit):
    for n, value in enumerate(function("passes").map(range(int(limit)))):
        assert n == value
        if n == 300:
            report(some=n)
    report(all=n + 1)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
