"""A step whose result differs each time it is made. FORCE builds it anew, MARK makes the step a new one."""

import json
import os

import modal

base = modal.Image.debian_slim(python_version="3.11")
command = f"echo {os.environ.get('MARK', '')} && cat /proc/sys/kernel/random/uuid > /made"
image = base.run_commands(command, force_build=bool(os.environ.get("FORCE")))
app = modal.App("image-forced", image=image)


@app.function()
def made():
    return open("/made").read()


@app.local_entrypoint()
def main():
    print("RESULT " + json.dumps({"made": made.remote()}))
