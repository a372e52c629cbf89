"""Secrets in build steps: commands and a function see TOKEN, what they build has it not. MARK makes new layers."""

import json
import os
import subprocess

import modal

MARK = os.environ.get("MARK", "")
TOKEN = os.environ.get("TOKEN", "")


def at_build():
    print("function built something")
    open("/from-function", "w").write(str(len(os.environ["TOKEN"])))


token = modal.Secret.from_dict({"TOKEN": TOKEN})
image = (
    modal.Image.debian_slim(python_version="3.11")
    .run_commands(f"echo commands built {MARK} && printf %s $TOKEN | wc -c > /from-command", secrets=[token])
    .run_function(at_build, secrets=[token])
)
app = modal.App("image-secrets", image=image)


@app.function()
def inspect(token):
    where = ["/etc", "/root", "/srv", "/tmp", "/var", "/from-command", "/from-function"]
    found = subprocess.run(["grep", "-rlaF", token, *where], capture_output=True, text=True).stdout
    return {
        "lengths": [int(open(f"/from-{who}").read()) for who in ["command", "function"]],
        "in environment": "TOKEN" in os.environ,
        "in files": found.splitlines(),
    }


@app.local_entrypoint()
def main():
    print("RESULT " + json.dumps(inspect.remote(TOKEN)))
