"""What containers see of secrets, each made in another way. STORED names the one that the server keeps."""

import inspect
import json
import os

import modal

STORED = os.environ.get("STORED", "stored")
NAMES = ["DICT_KEY", "STORED_KEY", "LOCAL_KEY", "DOTENV_KEY", "SHARED", "DIRECT", "PYTHONPATH", "MODAL_TASK_ID"]

app = modal.App("keys")
secrets = [
    modal.Secret.from_dict({"DICT_KEY": "from a dictionary", "SHARED": "first", "MODAL_TASK_ID": "forged"}),
    modal.Secret.from_name(STORED),
    modal.Secret.from_local_environ(["LOCAL_KEY"]),
    modal.Secret.from_dotenv(__file__, filename="keys.env"),
]
has_env = "env" in inspect.signature(app.function).parameters
direct = {"env": {"DIRECT": "from an argument", "SHARED": "last"}} if has_env else {}


def seen():
    return {name: os.environ.get(name) for name in NAMES}


@app.function(secrets=secrets, **direct)
def function():
    return seen()


@app.function()
def without():
    return seen()


@app.cls(secrets=[modal.Secret.from_dict({"DICT_KEY": "of the class", "SHARED": "of the class"})])
class Service:
    @modal.method()
    def look(self):
        return seen()


@app.local_entrypoint()
def main():
    other = Service.with_options(secrets=[modal.Secret.from_name(STORED)]) if has_env else None
    print("RESULT " + json.dumps({"function": function.remote(), "without": without.remote()}))
    print("RESULT " + json.dumps({"class": Service().look.remote()}))
    if other:
        print("RESULT " + json.dumps({"with options": other().look.remote()}))
