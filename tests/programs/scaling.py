"""Functions with limits, windows, concurrency and batches: how many containers serve them, and what those do."""

import inspect
import json
import os
import time

import modal

app = modal.App("scaling", image=modal.Image.debian_slim(python_version="3.11"))
PARAMETERS = inspect.signature(modal.App.function).parameters
OLD_NAMES = {
    "min_containers": "keep_warm",
    "max_containers": "concurrency_limit",
    "scaledown_window": "container_idle_timeout",
    "single_use_containers": "max_inputs",
}


def settings(**named):
    """Settings under the names that this client has for them; `max_inputs` is a number."""
    return {name if name in PARAMETERS else OLD_NAMES[name]: int(value) for name, value in named.items()}


def concurrent(inputs):
    """Decorates a function that takes several inputs at the same time."""
    if hasattr(modal, "concurrent"):
        return lambda f: app.function()(modal.concurrent(max_inputs=inputs)(f))
    return app.function(allow_concurrent_inputs=inputs)


def here():
    return os.environ["MODAL_TASK_ID"]


@app.function(**settings(max_containers=2, scaledown_window=2))
def limited(x):
    began = time.time()
    time.sleep(0.3)
    return [here(), began, time.time()]


@concurrent(4)
def together(x):
    began = time.time()
    time.sleep(1)
    return [here(), began, time.time()]


@app.function(**settings(single_use_containers=True, max_containers=1))
def once(x):
    return here()


@app.function(memory=(128, 256))
def eat(mebibytes):
    return len(b"x" * (mebibytes << 20))


@app.function(cpu=4096)
def giant():
    return "impossible"


if hasattr(modal, "batched"):

    @app.function(**settings(max_containers=1))
    @modal.batched(max_batch_size=3, wait_ms=1500)
    def batch(xs):
        return [[x, len(xs)] for x in xs]


def report(**values):
    print("RESULT " + json.dumps(values))


def runners(function):
    return function.get_current_stats().num_total_runners


def wait_for_runners(function, number, seconds=20):
    deadline = time.time() + seconds
    while runners(function) != number and time.time() < deadline:
        time.sleep(0.1)
    return runners(function)


def keep(function, number):
    """Keeps so many containers, by the method that this client has for it."""
    if hasattr(function, "autoscaler"):
        return function.autoscaler.update(min_containers=number)
    update = getattr(function, "update_autoscaler", None)
    return update(min_containers=number) if update else function.keep_warm(number)


@app.local_entrypoint()
def main():
    waiting = giant.spawn()
    report(limited=list(limited.map(range(8))))
    report(together=list(together.map(range(4))))
    report(once=[once.remote(x) for x in range(2)])
    try:
        report(eaten=eat.remote(400))
    except Exception as error:
        report(eaten=str(error))
    if hasattr(modal, "batched"):
        report(batched=list(batch.map(range(5))))
    report(gone=wait_for_runners(limited, 0))
    keep(limited, 1)
    report(kept=wait_for_runners(limited, 1))
    time.sleep(3)
    report(still=runners(limited), warm=limited.remote(0)[0])
    keep(limited, 0)
    report(left=wait_for_runners(limited, 0))
    waiting.cancel()
