"""Images built on their own, one from nothing, and a function that runs in one by the image's id.

Older clients build an image only with an app that uses it.
"""

import json

import modal

described = modal.Image.debian_slim(python_version="3.11").run_commands("echo made > /made")
scratch = None
if hasattr(described, "build"):
    described.build()
    scratch = modal.Image.from_scratch().add_local_file(__file__, "/program.py", copy=True).build().object_id[:3]
else:
    building = modal.App("image-by-id-first", image=described)
    building.function(serialized=True)(lambda: None)
    with building.run():
        pass
image = modal.Image.from_id(described.object_id)
app = modal.App("image-by-id", image=image)


@app.function(serialized=True)
def made():
    return open("/made").read()


with app.run():
    same = image.object_id == described.object_id
    print("RESULT " + json.dumps({"made": made.remote(), "same": same, "scratch": scratch}))
