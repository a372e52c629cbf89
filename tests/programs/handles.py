"""What can be done with a call that was spawned. Each entrypoint reports what came back."""

import inspect
import json
import os
import time

import modal

app = modal.App("handles", image=modal.Image.debian_slim(python_version="3.11"))


@app.function()
def square(x):
    return x * x


@app.function()
def add(a, b=0):
    return a + b


@app.function()
def fail(x):
    raise ValueError(f"{x} failed")


@app.function()
def outer(n):
    return sum(square.map(range(n)))


# One container, so that a call shows whether the one before let go of it.
single = {"max_containers": 1} if "max_containers" in inspect.signature(app.function).parameters else {"concurrency_limit": 1}


@app.function(**single)
def sleeper(seconds):
    if seconds:
        time.sleep(seconds)
    return os.environ["MODAL_TASK_ID"]


@app.function(timeout=4, **single)
def oversleeper(seconds):
    time.sleep(seconds)
    return os.environ["MODAL_TASK_ID"]


def report(**values):
    print("RESULT " + json.dumps(values))


def outcome(call):
    try:
        return ["returned", call()]
    except BaseException as error:
        return [kind.__name__ for kind in type(error).__mro__][:-1] + [str(error)]


@app.local_entrypoint()
def several():
    gather = getattr(modal.functions.FunctionCall, "gather", None) or modal.functions.gather
    report(gathered=list(gather(*[square.spawn(x) for x in range(3)])))
    report(failed=outcome(lambda: gather(square.spawn(1), fail.spawn(2))))
    report(for_each=square.for_each([1, 2]), ignored=fail.for_each([1], ignore_exceptions=True))
    report(for_each_failed=outcome(lambda: fail.for_each([1])))
    kept = list(add.starmap([(1, 2), (1, "x")], return_exceptions=True))
    # 0.77 wraps the exceptions that it returns.
    report(starmap=kept[0], starmap_failed=type(getattr(kept[1], "exc", kept[1])).__name__)
    report(keywords=list(add.map([1, 2], kwargs={"b": 10})))


@app.local_entrypoint()
async def asynchronous():
    report(remote=await square.remote.aio(3))
    report(map=[x async for x in square.map.aio([1, 2, 3])])
    call = await square.spawn.aio(4)
    report(spawned=await call.get.aio(timeout=60))
    report(starmap=[x async for x in add.starmap.aio([(1, 2)])])


@app.local_entrypoint()
def cancelled():
    first = sleeper.remote(0)
    call = sleeper.spawn(300)
    report(not_yet=outcome(lambda: call.get(timeout=0)), still_not=outcome(lambda: call.get(timeout=1)))
    call.cancel()
    began = time.monotonic()
    report(cancelled=outcome(lambda: call.get(timeout=30)))
    report(same=sleeper.remote(0) == first, freed_after=time.monotonic() - began)
    if "terminate_containers" in inspect.signature(call.cancel).parameters:
        call = sleeper.spawn(300)
        time.sleep(1)
        call.cancel(terminate_containers=True)
        report(terminated=outcome(lambda: call.get(timeout=30)), replaced=sleeper.remote(0) != first)


@app.local_entrypoint()
def too_slow():
    first = oversleeper.remote(0)
    call = oversleeper.spawn(300)
    waiting = oversleeper.spawn(0)
    report(late=outcome(lambda: call.get(timeout=60)))
    report(next_elsewhere=waiting.get(timeout=60) != first)


@app.local_entrypoint()
def graph():
    call = outer.spawn(3)
    call.get(timeout=60)
    (top,) = call.get_call_graph()
    children = [(child.function_name, child.status.name, child.function_call_id) for child in top.children]
    report(name=top.function_name, status=top.status.name, task=top.task_id, call=top.function_call_id == call.object_id)
    report(children=sorted(child[:2] for child in children), of_one_call=len({child[2] for child in children}))


@app.function()
def count(n):
    yield from range(n)


@app.cls(**single)
class Tally:
    @modal.enter()
    def start(self):
        self.seen = []

    @modal.method()
    def see(self, x):
        self.seen.append(x)
        return sorted(self.seen)


@app.local_entrypoint()
def left_alone():
    # Nobody waits for these calls; the one container that runs them remembers them.
    tally = Tally()
    tally.see.spawn_map(range(20))
    deadline = time.monotonic() + 60
    while len(seen := tally.see.remote(-1)) - seen.count(-1) < 20 and time.monotonic() < deadline:
        time.sleep(0.5)
    report(seen=[x for x in seen if x >= 0])
    if hasattr(modal.functions.FunctionCall, "get_gen"):
        report(generated=list(count.spawn(3).get_gen()))


@app.local_entrypoint()
def long_spawned_map():
    call = square.experimental_spawn_map(range(1200))
    report(inputs=call.num_inputs(), last=call.get(timeout=60, index=1199), sum=sum(call.iter()))
    report(part=list(call.iter(start=3, end=5)))


@app.function(serialized=True)
def serialized(x):
    return x + 1


@app.local_entrypoint()
def as_data():
    report(serialized=serialized.remote(1))


@app.function()
def reverse(data):
    return data[::-1]


@app.local_entrypoint()
def huge(megabytes: int):
    data = os.urandom(1 << 20) * megabytes
    began = time.monotonic()
    report(same=reverse.remote(data) == data[::-1], seconds=time.monotonic() - began)


@app.function()
def blocks(count):
    for n in range(count):
        yield bytes([n % 256]) * (1 << 20)


@app.local_entrypoint()
def slow_reader(count: int = 200):
    seen = 0
    for n, block in enumerate(blocks.remote_gen(count)):
        assert block == bytes([n % 256]) * (1 << 20), n
        seen += 1
        if n == 0:
            time.sleep(3)
    report(seen=seen)
