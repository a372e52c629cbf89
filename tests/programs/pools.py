"""A deployed class with parameters: every set of them has its own containers."""

import os
import time

import modal

NAME = os.environ.get("DEPLOYMENT", "pools")

image = modal.Image.debian_slim(python_version="3.11").env({"DEPLOYMENT": NAME})
app = modal.App(NAME, image=image)


class Base:
    """Life cycle and a method that subclasses inherit."""

    @modal.enter()
    def first(self):
        self.entered = ["first"]

    @modal.enter()
    async def second(self):
        self.entered.append("second")

    @modal.method()
    def where(self):
        return [self.name, self.size, os.environ["MODAL_TASK_ID"], self.entered]

    @modal.exit()
    def leave(self):
        print(f"left {self.name}")


class Methods(Base):
    @modal.method()
    def nap(self, seconds):
        began = time.time()
        time.sleep(seconds)
        return [os.environ["MODAL_TASK_ID"], began, time.time()]

    @modal.method()
    def eat(self, mebibytes):
        return len(b"x" * (mebibytes << 20))


if hasattr(modal, "parameter"):

    @app.cls()
    class Model(Methods):
        name: str = modal.parameter(default="plain")
        size: int = modal.parameter(default=2)

else:

    @app.cls()
    class Model(Methods):
        def __init__(self, name="plain", size=2):
            self.name = name
            self.size = size


if hasattr(modal, "batched"):

    @app.cls()
    class Batched:
        @modal.batched(max_batch_size=2, wait_ms=100)
        def sizes(self, xs):
            return [len(xs)] * len(xs)
