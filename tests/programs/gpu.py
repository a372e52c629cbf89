"""Wants eight H100: more than a machine that runs these tests has."""

import modal

app = modal.App("gpu", image=modal.Image.debian_slim(python_version="3.11"))


@app.function(gpu="h100:8")
def compute(x):
    return x + 1


@app.local_entrypoint()
def main():
    print("computed", compute.remote(41))
