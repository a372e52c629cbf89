"""One image with every kind of step that all client versions have. MARK makes the last step a new one."""

import json
import os
import subprocess

import modal

MARK = os.environ.get("MARK", "")


def write_at_build(path, text, times=1):
    print("build function writes", path)
    with open(path, "w") as file:
        file.write(text * times)


image = (
    modal.Image.debian_slim(python_version="3.11")
    .apt_install("tree")
    .pip_install("six==1.17.0")
    .env({"COLOUR": "blue", "QUOTED": 'with "quotes" and spaces'})
    .workdir("/srv")
    .run_commands("pwd > where", "mkdir -p deep/er && ln -s ../where deep/link && echo $COLOUR > deep/colour")
    .run_function(write_at_build, args=("/srv/built", "built "), kwargs={"times": 3})
    .run_commands(f"echo mark {MARK} && rm /srv/deep/colour")
)
app = modal.App("image-steps", image=image)


@app.function()
def inspect():
    import six

    return {
        "tree": subprocess.run(["tree", "--version"], capture_output=True, text=True).stdout,
        "six": six.__version__,
        "environment": {name: os.environ.get(name) for name in ["COLOUR", "QUOTED"]},
        "directory": os.getcwd(),
        "where": open("/srv/deep/link").read().strip(),
        "built": open("/srv/built").read(),
        "removed": os.path.exists("/srv/deep/colour"),
        "python": os.sys.version.split()[0],
    }


@app.local_entrypoint()
def main():
    print("RESULT " + json.dumps(inspect.remote()))
