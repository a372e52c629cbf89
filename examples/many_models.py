"""Several models from one app: parameters of the class say which one, and each has containers of its own.

    modal run examples/many_models.py

Works with every client version.
"""

import modal

# create a Volume, or retrieve it if it exists
volume = modal.Volume.from_name("many-models-vol", create_if_missing=True)
MODEL_DIR = "/vol/models"
SOURCE = "sentence-transformers/all-MiniLM-L6-v2"
LAYERS = {"whole": 6, "half": 3}  # the model as it is, and the lower half of it
SENTENCES = [
    "Each model has its own containers.",
    "A volume is a disk that many containers share.",
    "It rained on the harbour all afternoon.",
]

image = modal.Image.debian_slim(python_version="3.11").pip_install(
    "huggingface_hub==0.36.2", "numpy==2.2.6", "safetensors==0.6.2", "tokenizers==0.22.2"
)
if hasattr(image, "add_local_python_source"):  # clients before 0.73 add imported local modules by themselves
    image = image.add_local_python_source("minilm")

app = modal.App("many-models", image=image)

with image.imports():
    from minilm import load


@app.function(volumes={MODEL_DIR: volume})
def store_model(model_id):
    """Puts a model directory on the Volume: all files of the source, with as many layers as the model has."""
    import json
    import os
    import shutil

    from huggingface_hub import snapshot_download
    from safetensors.numpy import load_file, save_file

    source = snapshot_download(SOURCE)
    directory = f"{MODEL_DIR}/{model_id}"
    os.makedirs(directory, exist_ok=True)
    for name in ["sentence_bert_config.json", "tokenizer.json"]:
        shutil.copyfile(f"{source}/{name}", f"{directory}/{name}")
    with open(f"{source}/config.json") as file:
        config = json.load(file)
    config["num_hidden_layers"] = LAYERS[model_id]
    with open(f"{directory}/config.json", "w") as file:
        json.dump(config, file)

    def is_kept(name):
        return not name.startswith("encoder.layer.") or int(name.split(".")[2]) < LAYERS[model_id]

    weights = load_file(f"{source}/model.safetensors")
    save_file({name: value for name, value in weights.items() if is_kept(name)}, f"{directory}/model.safetensors")
    volume.commit()
    return os.path.getsize(f"{directory}/model.safetensors")


class Embedder:
    """What the class does, whichever way its parameters come."""

    @modal.enter()
    def setup(self):
        volume.reload()  # fetch latest changes to the Volume
        self.embed = load(f"{MODEL_DIR}/{self.model_id}")
        print(f"loaded {self.model_id}")

    @modal.method()
    def inference(self, sentences):
        return self.embed(sentences)


if hasattr(modal, "parameter"):  # clients from 0.74 on

    @app.cls(gpu="any", volumes={MODEL_DIR: volume})
    class Model(Embedder):
        model_id: str = modal.parameter()

else:

    @app.cls(gpu="any", volumes={MODEL_DIR: volume})
    class Model(Embedder):
        def __init__(self, model_id):
            self.model_id = model_id


@app.local_entrypoint()
def main(question: str = "Where do the weights of a model live?"):
    for model_id, size in zip(LAYERS, store_model.map(LAYERS)):
        print(f"stored {model_id}: {size >> 20} MiB")
    for model_id in LAYERS:
        asked, *answers = Model(model_id=model_id).inference.remote([question, *SENTENCES])
        scores = [sum(a * b for a, b in zip(asked, answer)) for answer in answers]
        best = max(range(len(scores)), key=scores.__getitem__)
        print(f"{model_id}: {scores[best]:6.3f}  {SENTENCES[best]}")
