"""A function that works on the files of a Volume by requests, as programs outside do, and one that has it mounted."""

import hashlib
import io
import json
import os
import stat

import modal

NAME = os.environ.get("VOLUME", "volume-files-inside")
OPTIONS = {"version": 2} if os.environ.get("VOLUME_API") == "2" else {}
volume = modal.Volume.from_name(NAME, create_if_missing=True, **OPTIONS)
app = modal.App("volume-files-inside", image=modal.Image.debian_slim(python_version="3.11"))


@app.function(secrets=[])
def by_requests(name, options):
    volume = modal.Volume.from_name(name, **options)
    data = os.urandom(9 << 20)
    with volume.batch_upload() as batch:
        batch.put_file(io.BytesIO(data), "inside/large")
        batch.put_file(io.BytesIO(b"small"), "inside/small", mode=0o751)
    volume.copy_files(["inside/small"], "inside/copy")
    volume.remove_file("inside/small")
    read = b"".join(volume.read_file("inside/large"))
    return {
        "listed": sorted(entry.path for entry in volume.listdir("inside")),
        "same": read == data,
        "sha256": hashlib.sha256(data).hexdigest(),
    }


@app.function(volumes={"/vol": volume})
def mounted():
    found = {}
    for name in sorted(os.listdir("/vol/inside")):
        with open(f"/vol/inside/{name}", "rb") as file:
            status = os.fstat(file.fileno())
            content = hashlib.sha256(file.read()).hexdigest()
        found[name] = {"mode": stat.S_IMODE(status.st_mode), "owner": status.st_uid, "sha256": content}
    return found


@app.local_entrypoint()
def main():
    volume.listdir("/")
    asked = by_requests.remote(NAME, OPTIONS)
    print("RESULT " + json.dumps({"asked": asked, "mounted": mounted.remote()}))
