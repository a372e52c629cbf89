"""Writes minilm.json: the vectors that the reference library computes for a few sentences.

Usage: python minilm.py MODEL_DIRECTORY > minilm.json. See README.md beside this file.
"""

import json
import sys
from importlib.metadata import version

from sentence_transformers import SentenceTransformer

SENTENCES = [
    "Where do model weights live?",
    "The weights are part of the container image.",
    "A volume is a disk that many containers share.",
    "It rained on the harbour all afternoon.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich — 日本語も少し。",
    "One sentence that is a good deal longer than all the others, " * 30,
]

vectors = SentenceTransformer(sys.argv[1], device="cpu").encode(SENTENCES, normalize_embeddings=True)
libraries = {name: version(name) for name in ["sentence-transformers", "transformers", "torch"]}
lines = (json.dumps({"sentence": sentence, "vector": [round(float(x), 8) for x in vector]}, ensure_ascii=False)
         for sentence, vector in zip(SENTENCES, vectors))
print(json.dumps({"libraries": libraries})[:-1] + ', "sentences": [\n' + ",\n".join(lines) + "\n]}")
