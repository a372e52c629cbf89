"""Life cycle of a class: one enter, many calls, one exit."""

import json
import os

import modal

app = modal.App("classes", image=modal.Image.debian_slim(python_version="3.11"))


@app.cls()
class Counter:
    @modal.enter()
    def start(self):
        print("ENTER", os.getpid())
        self.calls = 0

    @modal.method()
    def call(self, x):
        self.calls += 1
        return [self.calls, x, os.getpid()]

    @modal.method()
    def count(self, n):
        yield from range(n)

    @modal.method()
    async def fail(self):
        raise KeyError("lost")

    @modal.exit()
    def end(self):
        print("EXIT after", self.calls)


@app.cls()
class Broken:
    @modal.enter()
    def start(self):
        raise RuntimeError("the weights are damaged")

    @modal.method()
    def call(self):
        return 1


def report(**values):
    print("RESULT " + json.dumps(values))


@app.local_entrypoint()
def main():
    counter = Counter()
    report(calls=[counter.call.remote(x) for x in "abc"], generator=list(counter.count.remote_gen(3)))
    report(map=sorted(x for _, x, _ in counter.call.map(range(5))))
    try:
        counter.fail.remote()
    except KeyError as error:
        report(failed=str(error))


@app.local_entrypoint()
def broken():
    try:
        Broken().call.remote()
    except RuntimeError as error:
        report(type=type(error).__name__, text=str(error))
