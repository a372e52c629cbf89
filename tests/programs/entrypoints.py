"""Arguments of entrypoints and functions on the command line."""

import json

import modal

app = modal.App("entrypoints", image=modal.Image.debian_slim(python_version="3.11"))


@app.function()
def repeat(word: str, times: int = 2):
    print("repeated:", word * times)


@app.local_entrypoint()
def typed(number: int, text: str = "nothing", flag: bool = False):
    print("RESULT " + json.dumps({"number": number, "text": text, "flag": flag}))


@app.local_entrypoint()
def other():
    print("RESULT " + json.dumps({"other": True}))
