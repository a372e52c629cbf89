"""A class whose start takes a known time."""

import os
import time

import modal

app = modal.App(os.environ.get("NAME", "timeline"), image=modal.Image.debian_slim(python_version="3.11"))


@app.cls()
class Model:
    @modal.enter()
    def load(self):
        time.sleep(0.5)

    @modal.method()
    def answer(self):
        time.sleep(0.25)
        return 42


if __name__ == "__main__":
    with app.run():
        assert Model().answer.remote() == 42
        print("called", flush=True)
        time.sleep(2)
