"""Classes with `modal.parameter()`."""

import json

import modal

app = modal.App("classes-with-parameters", image=modal.Image.debian_slim(python_version="3.11"))


@app.cls()
class Multiplier:
    factor: int = modal.parameter(default=2)
    name: str = modal.parameter(default="plain")

    @modal.enter()
    def start(self):
        print("ENTER", self.name)

    @modal.method()
    def times(self, x):
        return [self.name, self.factor * x]


def report(**values):
    print("RESULT " + json.dumps(values))


@app.local_entrypoint()
def main():
    report(default=Multiplier().times.remote(5))
    report(given=Multiplier(factor=10, name="ten").times.remote(5))
