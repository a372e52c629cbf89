"""Uses a deployment from a process that doesn't have its source: python lookups.py APP."""

import json
import sys

import modal

app = sys.argv[1]


def find(kind, name):
    return kind.lookup(app, name) if hasattr(kind, "lookup") else kind.from_name(app, name)


def report(**values):
    print("RESULT " + json.dumps(values))


edition = find(modal.Function, "edition")
report(edition=edition.remote(1), map=list(edition.map([1, 2])), spawned=edition.spawn(3).get(timeout=60))
report(method=find(modal.Cls, "Adder")().add.remote(5))
try:
    find(modal.Function, "nobody").remote()
except modal.exception.NotFoundError as error:
    report(missing=str(error))
