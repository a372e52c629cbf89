"""Model weights in the container image, downloaded by a plain function with `Image.run_function`.

    modal run examples/weights_with_run_function.py

Works with every client version.
"""

import modal

MODEL_ID = "sentence-transformers/all-MiniLM-L6-v2"
MODEL_DIR = "/model"
SENTENCES = [
    "The weights are part of the container image.",
    "A volume is a disk that many containers share.",
    "It rained on the harbour all afternoon.",
]


def download_model(model_id, directory):
    from huggingface_hub import snapshot_download

    snapshot_download(model_id, local_dir=directory)


image = (
    modal.Image.debian_slim(python_version="3.11")
    .pip_install("huggingface_hub==0.36.2", "numpy==2.2.6", "safetensors==0.6.2", "tokenizers==0.22.2")
    .run_function(download_model, args=(MODEL_ID, MODEL_DIR))
)
if hasattr(image, "add_local_python_source"):  # clients before 0.73 add imported local modules by themselves
    image = image.add_local_python_source("minilm")

with image.imports():  # download_model runs while the image isn't finished, without this module
    from minilm import load

app = modal.App("weights-with-run-function", image=image)


@app.cls(gpu="any")
class Model:
    @modal.enter()
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
