"""An image from a registry: REFERENCE names it."""

import json
import os
import stat

import modal

image = modal.Image.from_registry(os.environ.get("REFERENCE", "unset"))
app = modal.App("image-from-registry", image=image)


def facts(path):
    status = os.lstat(path)
    return {"mode": oct(stat.S_IMODE(status.st_mode)), "owner": [status.st_uid, status.st_gid], "links": status.st_nlink}


@app.function()
def inspect():
    names = ["setuid", "linked", "linked-too", "owned"]
    return {
        "facts": {name: facts(f"/layers/{name}") for name in names},
        "same file": os.path.samefile("/layers/linked", "/layers/linked-too"),
        "attribute": os.getxattr("/layers/setuid", "user.note").decode(),
        "removed": os.path.exists("/layers/removed"),
        "emptied": sorted(os.listdir("/layers/emptied")),
        "variable": os.environ.get("FROM_REGISTRY"),
    }


@app.local_entrypoint()
def main():
    print("RESULT " + json.dumps(inspect.remote()))
