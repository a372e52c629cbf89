"""Functions that fail at first, or always. Each entrypoint reports how often they were tried."""

import json
import os
import time

import modal

app = modal.App("retries", image=modal.Image.debian_slim(python_version="3.11"))


def attempt(key):
    """The number of this attempt under `key`; attempts of one function share a container or the next one's log."""
    path = f"/attempts/{key}"
    with open(path, "a") as notes:
        notes.write(f"{time.time()}\n")
    with open(path) as notes:
        return [float(line) for line in notes]


@app.function(retries=2, network_file_systems={"/attempts": modal.NetworkFileSystem.from_name("attempts", create_if_missing=True)})
def second_time(key):
    times = attempt(key)
    if len(times) < 2:
        raise ValueError(f"attempt {len(times)}")
    return times


@app.function(
    retries=modal.Retries(max_retries=2, backoff_coefficient=2.0, initial_delay=1.0),
    network_file_systems={"/attempts": modal.NetworkFileSystem.from_name("attempts", create_if_missing=True)},
)
def never(key):
    raise ValueError(f"attempt {len(attempt(key))}")


@app.function(
    retries=1, timeout=8, network_file_systems={"/attempts": modal.NetworkFileSystem.from_name("attempts", create_if_missing=True)}
)
def dies_once(key, how):
    times = attempt(key)
    if len(times) > 1:
        return len(times)
    if how == "exit":
        os._exit(7)
    time.sleep(60)


@app.function(network_file_systems={"/attempts": modal.NetworkFileSystem.from_name("attempts", create_if_missing=True)})
def times_of(key):
    with open(f"/attempts/{key}") as notes:
        return [float(line) for line in notes]


@app.function()
def not_retried(x):
    raise ValueError("once")


def report(**values):
    print("RESULT " + json.dumps(values))


def failure(call):
    try:
        return f"returned {call()}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@app.local_entrypoint()
def main(run: str):
    report(remote=len(second_time.remote(f"{run}-remote")))
    spawned = second_time.spawn(f"{run}-spawn")
    dying = [dies_once.spawn(f"{run}-{how}", how) for how in ("exit", "sleep")]
    failing = never.spawn(f"{run}-never")
    report(map=[len(times) for times in second_time.map([f"{run}-map-{n}" for n in range(4)])])
    report(spawn=len(spawned.get(timeout=60)), dies=[call.get(timeout=90) for call in dying])
    report(never=failure(lambda: failing.get(timeout=60)), once=failure(lambda: not_retried.remote(1)))
    report(times=times_of.remote(f"{run}-never"))
