"""A deployment of which every version says its EDITION. BROKEN=1 makes one that can't be deployed."""

import inspect
import os
import time

import modal

NAME = os.environ.get("DEPLOYMENT", "versions")
EDITION = os.environ.get("EDITION", "unset")

app = modal.App(NAME)
limit = "max_containers" if "max_containers" in inspect.signature(app.function).parameters else "concurrency_limit"
secrets = [modal.Secret.from_dict({"EDITION": EDITION, "DEPLOYMENT": NAME})]


@app.function(secrets=secrets)
def edition():
    return os.environ["EDITION"]


@app.function(secrets=secrets, **{limit: 1})
def held(seconds):
    print(f"held by {os.environ['EDITION']}", flush=True)
    time.sleep(seconds)
    return os.environ["EDITION"]


@app.cls(secrets=secrets)
class Shelf:
    @modal.method()
    def edition(self):
        return os.environ["EDITION"]


if os.environ.get("BROKEN"):

    @app.function(schedule=modal.Period(days=1))
    def refused():
        pass


if EDITION == "second":

    @app.function(secrets=secrets)
    def added():
        return "added"
