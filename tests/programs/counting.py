"""Counts on the other side how often it was called."""

import json

import modal

app = modal.App("counting", image=modal.Image.debian_slim(python_version="3.11"))


@app.cls()
class Counter:
    @modal.enter()
    def start(self):
        self.calls = 0

    @modal.method()
    def call(self):
        self.calls += 1
        return self.calls


@app.local_entrypoint()
def main():
    counter = Counter()
    print("RESULT " + json.dumps({"counts": [counter.call.remote() for _ in range(8)]}))
