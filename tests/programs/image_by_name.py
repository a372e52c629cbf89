"""An image published as NAME:v1, and a function that runs in it by its name. LOOK=only doesn't publish it."""

import json
import os

import modal

name = f"{os.environ['NAME']}:v1"
if "LOOK" not in os.environ:
    built = modal.Image.debian_slim(python_version="3.11").run_commands("echo made > /made").build()
    built.publish(name)
app = modal.App("image-by-name", image=modal.Image.from_name(name))


@app.function(serialized=True)
def made():
    return open("/made").read()


with app.run():
    print("RESULT " + json.dumps({"made": made.remote(), "id": built.object_id}))
