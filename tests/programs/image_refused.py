"""Images that this server refuses; WHAT chooses one. Older clients know no Volumes of commands."""

import os

import modal

base = modal.Image.debian_slim(python_version="3.11")


def image():
    what = os.environ.get("WHAT")
    if what == "aws":
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "eu-central-1"}
        return modal.Image.from_aws_ecr("1.dkr.ecr.eu-central-1.amazonaws.com/a:b", secret=modal.Secret.from_dict(keys))
    if what == "python":
        return modal.Image.from_registry("debian:bookworm", add_python="3.11")
    if what == "volume":
        return base.run_commands("true", volumes={"/data": modal.Volume.from_name("refused", create_if_missing=True)})
    if what == "onbuild":
        return base.dockerfile_commands("ONBUILD RUN true")
    if what == "url":
        return base.dockerfile_commands("ADD https://example.invalid/file /file")
    return base


app = modal.App("image-refused", image=image())


@app.function()
def f():
    return "ran"


@app.local_entrypoint()
def main():
    print(f.remote())
