"""One server for the whole session, and a client of each version in front of it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterator

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness.client import Client  # noqa: E402
from harness.matrix import CLIENT_VERSIONS, ClientVersion  # noqa: E402
from harness.paths import CACHE, HOMEPORT, ROOT  # noqa: E402
from harness.server import Server, homeport  # noqa: E402

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
# Bootstrapping a base image and installing compilers in it takes minutes on a small machine.
FIRST_RUN_SECONDS = 1500


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--client", action="append", default=[], help="run with this client version only (repeatable)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "version" not in metafunc.fixturenames:
        return
    abilities = [name for marker in metafunc.definition.iter_markers("only") for name in marker.args]
    versions = [v for v in CLIENT_VERSIONS if all(getattr(v, ability) for ability in abilities)]
    if metafunc.definition.get_closest_marker("once"):
        versions = versions[-1:]
    wanted = metafunc.config.getoption("client")
    if wanted:
        versions = [v for v in versions if v.number in wanted]
    # Sorted by version within a module, so that a module's runs are shared between its tests.
    metafunc.parametrize("version", versions, ids=str, scope="module")


@pytest.fixture(scope="session")
def machine() -> None:
    """What every test needs of the machine; a clear word instead of a hundred failures."""
    assert os.geteuid() == 0, "the end-to-end tests start containers: run them as root"
    assert HOMEPORT.is_file(), f"{HOMEPORT} is missing: cargo build --release -p homeport"
    for version in CLIENT_VERSIONS:
        assert version.python.exists(), f"{version.python} is missing: scripts/venvs/clients.sh"


@pytest.fixture(scope="session")
def server(machine: None) -> Iterator[Server]:
    """The server of the session, with the example model in its hub. Leaves a clean machine."""
    CACHE.mkdir(parents=True, exist_ok=True)
    log = CACHE / "server.log"
    log.unlink(missing_ok=True)
    server = Server(CACHE / "data", log)
    try:
        server.start("--gpu-fallback", "cpu")
        imported = homeport("models", "import", str(model_directory()), "--as", MODEL, data_dir=server.data_dir)
        assert imported.returncode == 0, imported.stdout + imported.stderr
        yield server
        server.stop()
    finally:
        server.kill()
    server.assert_no_traces()


def model_directory() -> Path:
    unpack = ROOT / "scripts" / "models" / "minilm.sh"
    done = subprocess.run([str(unpack)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{unpack} failed:\n{done.stdout}{done.stderr}"
    return Path(done.stdout.split()[-1])


@pytest.fixture(scope="session")
def first_runs() -> Dict[str, str]:
    """How the first program of each version ended: empty, or why it failed."""
    return {}


@pytest.fixture
def client(version: ClientVersion, server: Server, tmp_path: Path, first_runs: Dict[str, str]) -> Client:
    """A client in an empty home directory. The first one of a version also builds the base image."""
    client = Client(version, server, tmp_path)
    _run_first_program(client, first_runs)
    return client


@pytest.fixture(scope="module")
def shared_client(
    version: ClientVersion, server: Server, tmp_path_factory: pytest.TempPathFactory, first_runs: Dict[str, str]
) -> Client:
    """The same for fixtures that run one program for all tests of a module."""
    client = Client(version, server, tmp_path_factory.mktemp("home"))
    _run_first_program(client, first_runs)
    return client


def _run_first_program(client: Client, first_runs: Dict[str, str]) -> None:
    number = client.version.number
    if number not in first_runs:
        try:
            client.run("hello.py", timeout=FIRST_RUN_SECONDS)
            first_runs[number] = ""
        except AssertionError as error:
            first_runs[number] = str(error)
    assert not first_runs[number], f"not even hello.py ran with client {number}:\n{first_runs[number]}"


@pytest.fixture
def own_server(machine: None, tmp_path: Path) -> Iterator[Server]:
    """A server with an empty data directory, not started."""
    server = Server(tmp_path / "data", tmp_path / "server.log")
    yield server
    server.kill()
    shutil.rmtree(server.data_dir, ignore_errors=True)
