"""Every way to call a function. Each entrypoint reports what came back."""

import hashlib
import json
import os
import traceback

import modal

app = modal.App("calls", image=modal.Image.debian_slim(python_version="3.11"))


@app.function()
def square(x):
    return x * x


@app.function()
def add(a, b=0):
    return a + b


@app.function()
def count(n):
    yield from range(n)


@app.function()
async def count_async(n):
    for i in range(n):
        yield i * 10


@app.function()
async def triple(x):
    return 3 * x


@app.function()
def fail_when_odd(x):
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x


@app.function()
def sum_of_squares(n):
    return sum(square.map(range(n)))


@app.function()
def digest_and_double(data):
    return hashlib.sha256(data).hexdigest(), data + data


@app.function()
def container():
    return os.environ["MODAL_TASK_ID"], os.getpid()


def report(**values):
    print("RESULT " + json.dumps(values))


@app.local_entrypoint()
def unary():
    report(positional=square.remote(3), keyword=add.remote(1, b=2), local=square.local(4))
    report(asynchronous=triple.remote(5), nothing=add.remote(0), nested=sum_of_squares.remote(5))
    report(first=container.remote(), second=container.remote())


@app.local_entrypoint()
def maps():
    report(map=list(square.map(range(60))), starmap=list(add.starmap([(1, 2), (3, 4)])))
    report(unordered=sorted(square.map(range(10), order_outputs=False)), empty=list(square.map([])))
    kept = fail_when_odd.map(range(4), return_exceptions=True)
    report(kept=[x if isinstance(x, int) else str(x) for x in kept])
    try:
        list(fail_when_odd.map(range(4)))
    except ValueError as error:
        report(raised=str(error))


@app.local_entrypoint()
def spawns():
    calls = [square.spawn(x) for x in range(4)]
    report(ids=[call.object_id for call in calls], spawned=[call.get(timeout=60) for call in calls])
    report(again=calls[0].get(timeout=60))
    reopened = modal.functions.FunctionCall.from_id(calls[3].object_id)
    report(reopened=reopened.get(timeout=60))


@app.local_entrypoint()
def generators():
    report(sync=list(count.remote_gen(5)), asynchronous=list(count_async.remote_gen(5)))
    report(long=sum(count.remote_gen(3000)), empty=list(count.remote_gen(0)))


@app.local_entrypoint()
def payloads():
    for name, size in [("inline", 1 << 20), ("blob", 3 << 20), ("multipart", 20 << 20)]:
        data = os.urandom(size)
        digest, doubled = digest_and_double.remote(data)
        report(**{name: digest == hashlib.sha256(data).hexdigest() and doubled == data + data})
    big = os.urandom(3 << 20)
    report(map=[doubled == big + big for _, doubled in digest_and_double.map([big, big])])
    _, doubled = digest_and_double.spawn(big).get(timeout=120)
    report(spawn=doubled == big + big)


@app.local_entrypoint()
def caught():
    try:
        fail_when_odd.remote(1)
    except ValueError as error:
        report(type=type(error).__name__, text=str(error), traceback=traceback.format_exc())


@app.local_entrypoint()
def uncaught():
    fail_when_odd.remote(1)
