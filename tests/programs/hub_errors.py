"""What the hub library raises for things that the hub doesn't have."""

import json

import modal

base = modal.Image.debian_slim(python_version="3.11").pip_install(
    "huggingface_hub==0.36.2", "numpy==2.2.6", "safetensors==0.6.2", "tokenizers==0.22.2"
)
app = modal.App("hub-errors")
MODEL = "sentence-transformers/all-MiniLM-L6-v2"


@app.function(image=base)
def ask():
    from huggingface_hub import hf_hub_download, snapshot_download

    attempts = {
        "repository": lambda: snapshot_download("nobody/has-this-model"),
        "revision": lambda: snapshot_download(MODEL, revision="no-such-revision"),
        "file": lambda: hf_hub_download(MODEL, "no-such-file.bin"),
        "present": lambda: hf_hub_download(MODEL, "config.json"),
    }
    outcomes = {}
    for name, attempt in attempts.items():
        try:
            outcomes[name] = ["worked", attempt()]
        except Exception as error:
            outcomes[name] = [type(error).__name__, str(error)]
    return outcomes


@app.local_entrypoint()
def calls():
    print("RESULT " + json.dumps(ask.remote()))
