"""Calls what is deployed as APP: python editions.py APP VERB."""

import json
import sys

import modal

name, verb = sys.argv[1:]


def find(kind, tag):
    return kind.lookup(name, tag) if hasattr(kind, "lookup") else kind.from_name(name, tag)


def report(**values):
    print("RESULT " + json.dumps(values), flush=True)


if verb == "ask":
    report(function=find(modal.Function, "edition").remote(), method=find(modal.Cls, "Shelf")().edition.remote())
    try:
        report(added=find(modal.Function, "added").remote())
    except modal.exception.NotFoundError:
        report(added=None)
elif verb == "hold":
    calls = [find(modal.Function, "held").spawn(seconds) for seconds in (6, 0)]
    print("calls are put", flush=True)
    report(held=[call.get(timeout=120) for call in calls])
elif verb == "tags":
    app = modal.App.lookup(name)
    app.set_tags({"team": "search"})
    info = app.info(refresh=True)
    report(tags=app.get_tags(), functions=sorted(info.functions), state=str(info.lifecycle.state))
