"""A build that asks the hub for a model that it doesn't have."""

import modal


def download_missing():
    from huggingface_hub import snapshot_download

    snapshot_download("nobody/has-this-model", local_dir="/model")


image = (
    modal.Image.debian_slim(python_version="3.11")
    .pip_install("huggingface_hub==0.36.2", "numpy==2.2.6", "safetensors==0.6.2", "tokenizers==0.22.2")
    .run_function(download_missing)
)
app = modal.App("hub-missing-in-build", image=image)


@app.function()
def f():
    return "ran"


@app.local_entrypoint()
def main():
    print(f.remote())
