"""Asks one of the examples for the vectors of the reference sentences: python embeddings.py EXAMPLE REFERENCE."""

import importlib
import json
import sys

import modal

example = importlib.import_module(sys.argv[1])
with open(sys.argv[2]) as file:
    sentences = [entry["sentence"] for entry in json.load(file)["sentences"]]

with modal.enable_output(), example.app.run():
    model = example.Model()
    print("RESULT " + json.dumps({"together": model.inference.remote(sentences)}))
    print("RESULT " + json.dumps({"alone": [model.inference.remote([sentence])[0] for sentence in sentences]}))
