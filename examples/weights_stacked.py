"""`@modal.build` and `@modal.enter` on one method: the first run of it, during the build, leaves the weights in the
image; the run at each container's start finds them there.

    modal run examples/weights_stacked.py

It saves a second method where a library downloads and loads in one go. For clients that have `@modal.build`.
"""

import modal

from minilm import load

image = modal.Image.debian_slim(python_version="3.11").pip_install(
    "huggingface_hub==0.36.2", "numpy==2.2.6", "safetensors==0.6.2", "tokenizers==0.22.2"
)
app = modal.App("weights-stacked", image=image)


@app.cls(gpu="any")
class Model:
    @modal.build()
    @modal.enter()
    def setup(self):
        from huggingface_hub import snapshot_download

        # The library's own cache in the home directory is part of the image as well.
        self.embed = load(snapshot_download("sentence-transformers/all-MiniLM-L6-v2"))

    @modal.method()
    def inference(self, sentences):
        return self.embed(sentences)


@app.local_entrypoint()
def main(sentence: str = "Where do the weights of a model live?"):
    (vector,) = Model().inference.remote([sentence])
    print(f"{len(vector)} dimensions, the first three: {[round(x, 4) for x in vector[:3]]}")
