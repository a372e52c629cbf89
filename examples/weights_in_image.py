"""Model weights in the container image: downloaded once, while the image is built.

    modal run examples/weights_in_image.py
    modal run examples/weights_in_image.py --question "What do containers share?"

For clients that have `@modal.build` (up to 0.77). The same on every client: weights_with_run_function.py.
"""

import os

import modal

from minilm import load  # the client puts local modules that were imported beside the program

MODEL_ID = "sentence-transformers/all-MiniLM-L6-v2"
MODEL_DIR = "/model"
SENTENCES = [
    "The weights are part of the container image.",
    "A volume is a disk that many containers share.",
    "It rained on the harbour all afternoon.",
]

image = modal.Image.debian_slim(python_version="3.11").pip_install(
    "huggingface_hub==0.36.2", "numpy==2.2.6", "safetensors==0.6.2", "tokenizers==0.22.2"
)
app = modal.App("weights-in-image", image=image)


@app.cls(gpu="any")
class Model:
    @modal.build()  # one more step of the image build: what it writes is in the image
    def download_model_to_folder(self):
        from huggingface_hub import snapshot_download

        os.makedirs(MODEL_DIR, exist_ok=True)
        snapshot_download(MODEL_ID, local_dir=MODEL_DIR)

    @modal.enter()  # once for each container, before its first call
    def setup(self):
        self.embed = load(MODEL_DIR)

    @modal.method()
    def inference(self, sentences):
        return self.embed(sentences)


@app.local_entrypoint()
def main(question: str = "Where do the weights of a model live?"):
    asked, *answers = Model().inference.remote([question, *SENTENCES])
    scores = [sum(a * b for a, b in zip(asked, answer)) for answer in answers]
    print(question)
    for score, sentence in sorted(zip(scores, SENTENCES), reverse=True):
        print(f"{score:6.3f}  {sentence}")
