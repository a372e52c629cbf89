"""A deployment that other processes use. EDITION tells one deployment of it from the next."""

import os
import time

import modal

EDITION = os.environ.get("EDITION", "unset")
NAME = os.environ.get("DEPLOYMENT", "deployed")

image = modal.Image.debian_slim(python_version="3.11").env({"EDITION": EDITION, "DEPLOYMENT": NAME})
app = modal.App(NAME, image=image)


@app.function()
def edition(x):
    print(f"edition {EDITION} called with {x}")
    return [os.environ["EDITION"], x]


@app.function()
def slow(seconds):
    print("slow begins")
    time.sleep(seconds)
    return seconds


@app.cls()
class Adder:
    @modal.enter()
    def start(self):
        self.base = 100

    @modal.method()
    def add(self, x):
        return self.base + x
