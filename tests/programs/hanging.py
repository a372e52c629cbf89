"""A class whose `enter` method never returns."""

import json
import time

import modal

app = modal.App("hanging", image=modal.Image.debian_slim(python_version="3.11"))


@app.cls(startup_timeout=4)
class Hanging:
    @modal.enter()
    def start(self):
        time.sleep(3600)

    @modal.method()
    def call(self):
        return 1


@app.local_entrypoint()
def main():
    began = time.time()
    try:
        text = f"returned {Hanging().call.remote()}"
    except Exception as error:
        text = str(error)
    print("RESULT " + json.dumps({"enter": text, "seconds": time.time() - began}))
