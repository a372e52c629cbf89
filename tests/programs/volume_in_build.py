"""A function that runs while its image is built, with a Volume mounted."""

import json
import os

import modal

NAME = os.environ.get("VOLUME", "volume-in-build")
volume = modal.Volume.from_name(NAME, create_if_missing=True)


def prepare(name):
    with open("/made", "w") as file:
        file.write("made in the build")
    with open("/deep/vol/kept", "w") as file:
        file.write("kept on the Volume")


image = modal.Image.debian_slim(python_version="3.11").run_function(
    prepare, args=(NAME,), volumes={"/deep/vol": volume}
)
app = modal.App("volume-in-build", image=image)


@app.function()
def in_the_image():
    with open("/made") as file:
        return {"image": file.read(), "below": os.path.exists("/deep/vol/kept")}


@app.function(volumes={"/elsewhere": volume})
def on_the_volume():
    with open("/elsewhere/kept") as file:
        return {"volume": file.read()}


@app.local_entrypoint()
def main():
    print("RESULT " + json.dumps({**in_the_image.remote(), **on_the_volume.remote()}))
