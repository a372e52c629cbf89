"""An image built on its own, and a function that runs in it by the image's id."""

import json

import modal

built = modal.Image.debian_slim(python_version="3.11").run_commands("echo made > /made").build()
image = modal.Image.from_id(built.object_id)
app = modal.App("image-by-id", image=image)


@app.function(serialized=True)
def made():
    return open("/made").read()


with app.run():
    print("RESULT " + json.dumps({"made": made.remote(), "same": image.object_id == built.object_id}))
