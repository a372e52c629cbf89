"""A container whose interpreter hangs before the client in it says a word."""

import json
import os
import tempfile

import modal

hang = tempfile.NamedTemporaryFile("w", suffix=".py", delete=False)
hang.write("import os, time\nif 'MODAL_TASK_ID' in os.environ:\n    time.sleep(600)\n")
hang.close()
image = modal.Image.debian_slim(python_version="3.11").add_local_file(hang.name, "/root/sitecustomize.py")
app = modal.App("never-connects", image=image)


@app.function(startup_timeout=4, retries=0)
def never():
    return "connected"


@app.local_entrypoint()
def main():
    try:
        text = never.remote()
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    finally:
        os.unlink(hang.name)
    print("RESULT " + json.dumps({"text": text}))
