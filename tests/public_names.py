"""Prints the public names of the installed client as JSON: run it with the interpreter of a client's environment.

A name is written as users write it: `App.function`, `App.function(gpu)` for an argument of a decorator, `modal app list`
for a command. What every kind of object has is listed once, as `Object.hydrate`.
"""

import inspect
import json
import sys

import modal

# Functions whose arguments say how something runs; those of other methods belong to the method.
DECORATORS = {
    "App.function",
    "App.cls",
    "App.server",
    "App.local_entrypoint",
    "asgi_app",
    "batched",
    "build",
    "concurrent",
    "enter",
    "exit",
    "fastapi_endpoint",
    "method",
    "parameter",
    "web_endpoint",
    "web_server",
    "wsgi_app",
    "Cls.with_options",
    "Cls.with_concurrency",
    "Cls.with_batching",
    "Function.with_options",
    "Function.with_concurrency",
    "Function.with_batching",
    "Function.update_autoscaler",
}


# What the classes of objects have in common.
COMMON = {
    "client",
    "clone",
    "deps",
    "get_dashboard_url",
    "hydrate",
    "is_hydrated",
    "local_uuid",
    "object_id",
    "resolve",
}


def public(names):
    return sorted(name for name in names if not name.startswith("_"))


def arguments(name, function):
    if name not in DECORATORS:
        return
    for argument in inspect.signature(function).parameters.values():
        plain = argument.kind in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY)
        if plain and not argument.name.startswith("_") and argument.name not in ("self", "cls"):
            yield f"{name}({argument.name})"


def of_class(name, found):
    members = {member for base in found.__mro__ if base.__module__.split(".")[0] == "modal" for member in vars(base)}
    for member in public(members):
        if member in COMMON:
            yield f"Object.{member}"
            continue
        yield f"{name}.{member}"
        value = inspect.getattr_static(found, member)
        yield from arguments(f"{name}.{member}", getattr(value, "__func__", getattr(found, member, None)))
        yield from manager(f"{name}.{member}", found, value)


def manager(name, found, value):
    """Methods behind a property that groups some, as `Volume.objects.list`."""
    inner = getattr(value, "fget", None)
    hint = getattr(inner or value, "__annotations__", {}).get("return", None)
    if not hint and hasattr(value, "fget"):
        return
    try:
        group = getattr(found, name.rsplit(".", 1)[1]) if inner is None else None
    except Exception:
        group = None
    kind = type(group) if group is not None and type(group).__name__.endswith("Manager") else None
    if kind is None and isinstance(hint, str):
        last = hint.strip("'\"").split(".")[-1].lstrip("_")
        if last.endswith("Manager"):
            kind = getattr(sys.modules.get(found.__module__), last, None)
    elif kind is None and inspect.isclass(hint) and hint.__name__.endswith("Manager"):
        kind = hint
    if kind is not None:
        for member in public(vars(kind)):
            yield f"{name}.{member}"


def names():
    for name in public(getattr(modal, "__all__", dir(modal))):
        value = getattr(modal, name)
        if inspect.ismodule(value):
            continue
        yield name
        # The old name of the same class.
        if inspect.isclass(value) and name != "Stub":
            yield from of_class(name, value)
        elif callable(value):
            yield from arguments(name, value)


def hidden_names():
    """What old clients have in a module that is not listed."""
    from modal import functions

    if not hasattr(modal, "FunctionCall"):
        yield "FunctionCall"
        yield from of_class("FunctionCall", functions.FunctionCall)
    if hasattr(functions, "gather"):
        yield "functions.gather"


def commands():
    from modal.cli.entry_point import entrypoint_cli

    def walk(path, command):
        subcommands = getattr(command, "commands", None)
        if not subcommands:
            yield " ".join(path)
            return
        for name, subcommand in sorted(subcommands.items()):
            if not getattr(subcommand, "hidden", False):
                yield from walk([*path, name], subcommand)

    yield from walk(["modal"], entrypoint_cli)


if __name__ == "__main__":
    print(json.dumps({"version": modal.__version__, "names": sorted({*names(), *hidden_names(), *commands()})}))
