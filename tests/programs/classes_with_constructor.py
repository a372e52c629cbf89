"""Classes whose constructor takes arguments, and steps of the image build in the class."""

import json
import os

import modal

app = modal.App("classes-with-constructor", image=modal.Image.debian_slim(python_version="3.11"))


@app.cls()
class Multiplier:
    def __init__(self, factor=2, name="plain"):
        self.factor = factor
        self.name = name

    @modal.build()
    def prepare(self):
        os.makedirs("/prepared")
        with open("/prepared/by-build", "w") as file:
            file.write("made while the image was built")

    @modal.enter()
    def start(self):
        print("ENTER", self.name)

    @modal.method()
    def times(self, x):
        return [self.name, self.factor * x]

    @modal.method()
    def prepared(self):
        with open("/prepared/by-build") as file:
            return file.read()


def report(**values):
    print("RESULT " + json.dumps(values))


@app.local_entrypoint()
def main():
    report(default=Multiplier().times.remote(5), built=Multiplier().prepared.remote())
    report(given=Multiplier(10, name="ten").times.remote(5))
