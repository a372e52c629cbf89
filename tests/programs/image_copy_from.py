"""Files of another image, REFERENCE, in an image of one's own."""

import json
import os

import modal

reference = os.environ.get("REFERENCE", "unset")
image = modal.Image.debian_slim(python_version="3.11").dockerfile_commands(
    f"COPY --from={reference} /layers/owned /copied/", f"COPY --from={reference} /layers/emptied /copied/emptied"
)
app = modal.App("image-copy-from", image=image)


@app.function()
def inspect():
    return {"owned": open("/copied/owned").read(), "names": os.listdir("/copied/emptied")}


@app.local_entrypoint()
def main():
    print("RESULT " + json.dumps(inspect.remote()))
