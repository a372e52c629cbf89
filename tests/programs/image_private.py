"""An image from a registry that wants a login: REGISTRY_USERNAME and REGISTRY_PASSWORD, if they are set."""

import json
import os

import modal

login = {name: os.environ[name] for name in ["REGISTRY_USERNAME", "REGISTRY_PASSWORD"] if name in os.environ}
secret = modal.Secret.from_dict(login) if login else None
image = modal.Image.from_registry(os.environ.get("REFERENCE", "unset"), secret=secret)
app = modal.App("image-private", image=image)


@app.function()
def inspect():
    return {"variable": os.environ.get("FROM_REGISTRY")}


@app.local_entrypoint()
def main():
    print("RESULT " + json.dumps(inspect.remote()))
