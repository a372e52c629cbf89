"""Two containers write the same file of a Volume, each without having seen what the other wrote."""

import json
import os

import modal

volume = modal.Volume.from_name(os.environ.get("VOLUME", "conflict"), create_if_missing=True)
app = modal.App("volume-conflict", image=modal.Image.debian_slim(python_version="3.11"))


def write(text):
    if text:
        with open("/vol/same.txt", "w") as file:
            file.write(text)
        with open(f"/vol/{text}.txt", "w") as file:
            file.write(text)
        volume.commit()


@app.function(volumes={"/vol": volume}, cpu=0.1)
def first(text):
    write(text)


@app.function(volumes={"/vol": volume}, cpu=0.1)
def second(text):
    write(text)


@app.local_entrypoint()
def main():
    # Both see the Volume as it is now.
    first.remote("")
    second.remote("")
    first.remote("from-first")
    second.remote("from-second")
    print("RESULT " + json.dumps({"done": True}))
