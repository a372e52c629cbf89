"""docs/compatibility.md against the clients and against the tests: no public name without a row, no claim without a test."""

import ast
import json
import re
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from typing import Dict, FrozenSet, List, Set

import pytest

from harness.matrix import CLIENT_VERSIONS, ClientVersion
from harness.paths import ROOT, TESTS

PAGE = ROOT / "docs" / "compatibility.md"
CELLS = {"works", "accepted", "client", "planned", "refused", "–"}
VERSIONS = [version.number for version in CLIENT_VERSIONS]


@dataclass(frozen=True)
class Row:
    """A line of the page."""

    names: List[str]
    cells: Dict[str, str]
    last: str

    @property
    def tests(self) -> List[str]:
        return re.findall(r"`(test_\w+\.py::test_\w+)`", self.last)

    def __str__(self) -> str:
        return ", ".join(self.names)


@lru_cache
def page() -> List[Row]:
    rows = []
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| `") and len(cells) == 2 + len(VERSIONS):
            rows.append(Row(re.findall(r"`([^`]+)`", cells[0]), dict(zip(VERSIONS, cells[1:-1])), cells[-1]))
    assert len(rows) > 100, "the page has almost no rows"
    return rows


@lru_cache
def names_of(version: ClientVersion) -> FrozenSet[str]:
    """The public names of a client, as its own interpreter sees them."""
    program = [str(version.python), "-W", "ignore", str(TESTS / "public_names.py")]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return frozenset(json.loads(done.stdout)["names"])


@lru_cache
def written_tests() -> Dict[str, Set[str]]:
    """Every test of the suite, with the versions of the client that it runs with."""
    found: Dict[str, Set[str]] = {}
    for path in sorted(TESTS.glob("test_*.py")):
        for function in ast.parse(path.read_text()).body:
            if isinstance(function, ast.FunctionDef) and function.name.startswith("test_"):
                marks = {name: arguments for name, arguments in map(mark, function.decorator_list)}
                abilities = marks.get("only", [])
                versions = {v.number for v in CLIENT_VERSIONS if all(getattr(v, ability) for ability in abilities)}
                # What runs once says that the client plays no part in it.
                found[f"{path.name}::{function.name}"] = set(VERSIONS) if "once" in marks else versions
    return found


def mark(decorator: ast.expr):
    call = decorator if isinstance(decorator, ast.Call) else None
    target = call.func if call else decorator
    arguments = [argument.value for argument in call.args if isinstance(argument, ast.Constant)] if call else []
    return (target.attr if isinstance(target, ast.Attribute) else "", arguments)


@pytest.mark.parametrize("number", VERSIONS)
def test_every_public_name_of_a_client_has_one_row(number: str) -> None:
    version = next(version for version in CLIENT_VERSIONS if version.number == number)
    rows: Dict[str, List[Row]] = {}
    for row in page():
        for name in row.names:
            rows.setdefault(name, []).append(row)
    names = names_of(version)
    assert len(names) > 300
    lacking = sorted(name for name in names if name not in rows)
    assert not lacking, f"{len(lacking)} names of {number} have no row: {lacking}"
    twice = sorted(name for name in names if len(rows[name]) > 1)
    assert not twice, f"names with several rows: {twice}"
    wrong = [str(row) for row in page() if (row.cells[number] == "–") == any(name in names for name in row.names)]
    assert not wrong, f"`–` stands where {number} has a name, or something else where it has none: {wrong}"


def test_no_row_names_what_no_client_has() -> None:
    known = frozenset().union(*(names_of(version) for version in CLIENT_VERSIONS))
    unknown = sorted(name for row in page() for name in row.names if name not in known)
    assert not unknown, f"names that no client has: {unknown}"


def test_every_claim_names_a_test_that_runs_with_that_client() -> None:
    tests = written_tests()
    wrong = []
    for row in page():
        wrong += [f"{row}: `{cell}` is no word of the page" for cell in row.cells.values() if cell not in CELLS]
        wrong += [f"{row}: there is no {test}" for test in row.tests if test not in tests]
        for number, cell in row.cells.items():
            if cell == "works" and not any(number in tests.get(test, ()) for test in row.tests):
                wrong.append(f"{row}: nothing shows that it works with {number}")
        if not row.last:
            wrong.append(f"{row}: neither a test nor a reason")
    assert not wrong, "\n".join(wrong)
