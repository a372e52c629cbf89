"""Model weights on a Volume: one function trains and stores them, a class serves them, and both share a disk.

    modal run examples/weights_on_volume.py

Works with every client version.
"""

import inspect

import modal

# create a Volume, or retrieve it if it exists
volume = modal.Volume.from_name("model-weights-vol", create_if_missing=True)
MODEL_DIR = "/vol/models"
MODEL = f"{MODEL_DIR}/digits.safetensors"

image = modal.Image.debian_slim(python_version="3.11").pip_install(
    "numpy==2.2.6", "safetensors==0.6.2", "scikit-learn==1.7.2"
)
app = modal.App("weights-on-volume", image=image)

# Clients before 0.64 have a flag for it; newer ones always commit in the background.
commits = {"_allow_background_volume_commits": True}
if not commits.keys() <= inspect.signature(modal.App.function).parameters.keys():
    commits = {}


def digits():
    """1797 handwritten digits of 8 × 8 pixels, three quarters of them to learn from: images and labels."""
    import numpy as np
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = images[order] / 16, labels[order]
    known = len(labels) * 3 // 4
    return (images[:known], labels[:known]), (images[known:], labels[known:])


def train(images, labels, epochs):
    """A network with one hidden layer, by gradient descent with momentum."""
    import numpy as np

    random = np.random.default_rng(1)
    model = {
        "hidden.weight": random.normal(0, 0.2, (64, 48)),
        "hidden.bias": np.zeros(48),
        "output.weight": random.normal(0, 0.2, (48, 10)),
        "output.bias": np.zeros(10),
    }
    momentum = {name: np.zeros_like(value) for name, value in model.items()}
    wanted = np.eye(10)[labels]
    for _ in range(epochs):
        for batch in np.array_split(random.permutation(len(labels)), len(labels) // 32):
            x = images[batch]
            hidden, scores = forward(model, x)
            slope = (scores - wanted[batch]) / len(batch)
            back = slope @ model["output.weight"].T * (hidden > 0)
            slopes = {
                "hidden.weight": x.T @ back,
                "hidden.bias": back.sum(0),
                "output.weight": hidden.T @ slope,
                "output.bias": slope.sum(0),
            }
            for name, value in slopes.items():
                momentum[name] = 0.9 * momentum[name] - 0.1 * value
                model[name] += momentum[name]
    return model


def forward(model, images):
    """The hidden layer, and how probable each digit is."""
    import numpy as np

    hidden = np.maximum(images @ model["hidden.weight"] + model["hidden.bias"], 0)
    scores = hidden @ model["output.weight"] + model["output.bias"]
    exponentials = np.exp(scores - scores.max(1, keepdims=True))
    return hidden, exponentials / exponentials.sum(1, keepdims=True)


def load_model():
    from safetensors.numpy import load_file

    return load_file(MODEL)


def accuracy(model):
    _, (images, labels) = digits()
    return float((forward(model, images)[1].argmax(1) == labels).mean())


@app.function(volumes={MODEL_DIR: volume}, **commits)
def run_training(epochs):
    from safetensors.numpy import save_file

    model = train(*digits()[0], epochs)
    save_file(model, MODEL, metadata={"epochs": str(epochs)})
    volume.commit()  # whoever starts or reloads from now on sees it; else it would be committed within seconds
    return accuracy(model)


@app.cls(volumes={MODEL_DIR: volume})
class ModelAtEachCall:
    @modal.method()
    def inference(self):
        return accuracy(load_model())  # read from the Volume at each call


@app.cls(volumes={MODEL_DIR: volume})
class Model:
    @modal.enter()
    def setup(self):
        self.model = load_model()  # once for each container

    @modal.method()
    def inference(self):
        return accuracy(self.model)

    @modal.method()
    def refresh(self):
        volume.reload()  # fetch the latest changes: until then a container sees the files that it started with
        self.model = load_model()


@app.local_entrypoint()
def main(epochs: int = 30):
    print(f"trained for 1 epoch: {run_training.remote(1):.3f}")
    print(f"loaded at each call: {ModelAtEachCall().inference.remote():.3f}")
    print(f"loaded at the start: {Model().inference.remote():.3f}")
    print(f"trained for {epochs} epochs: {run_training.remote(epochs):.3f}")
    print(f"before the reload: {Model().inference.remote():.3f}")
    Model().refresh.remote()
    print(f"after the reload: {Model().inference.remote():.3f}")
