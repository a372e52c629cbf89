"""Asks the models of the example `many_models` for vectors: python model_choice.py REFERENCE."""

import json
import sys

import many_models as example
import modal

with open(sys.argv[1]) as file:
    sentences = [entry["sentence"] for entry in json.load(file)["sentences"]]

with modal.enable_output(), example.app.run():
    list(example.store_model.map(example.LAYERS))
    for model_id in example.LAYERS:
        model = example.Model(model_id=model_id)
        vectors = [*model.inference.remote(sentences), *(model.inference.remote([one])[0] for one in sentences)]
        print("RESULT " + json.dumps({model_id: vectors}))
