"""Functions with names and numbers that no server can serve: what the client gets for each."""

import json

import modal

KINDS = {
    "timeout": {"timeout": 4_000_000_000},
    "negative": {"timeout": -1},
    "memory": {"memory": (4096, 128)},
    "concurrent": {"allow_concurrent_inputs": 3_000_000},
    "name": {"name": "a" * 5000},
    "slash": {"name": "../f"},
}


def report(**values):
    print("RESULT " + json.dumps(values))


for kind, settings in KINDS.items():
    app = modal.App("bad-numbers", image=modal.Image.debian_slim(python_version="3.11"))
    try:
        app.function(serialized=True, **settings)(lambda: 1)
        with app.run():
            text = "accepted"
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    report(**{kind: text})
