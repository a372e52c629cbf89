"""The server under test: the release binary as a process of its own."""

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Dict, FrozenSet, List, Optional

from .leftovers import assert_no_traces, containers, tag_of, traces
from .paths import HOMEPORT
from .waiting import wait_for

READY_SECONDS = 60
END_SECONDS = 10


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def homeport(*arguments: str, data_dir: Optional[Path] = None, timeout: float = 120) -> "subprocess.CompletedProcess[str]":
    """Runs a short command of the binary; the caller looks at its exit code."""
    where = ["--data-dir", str(data_dir)] if data_dir else []
    return subprocess.run(
        [str(HOMEPORT), *arguments, *where], capture_output=True, text=True, timeout=timeout, env=_environment()
    )


class Server:
    """`homeport up` with a data directory, a port and a log file that live longer than the process."""

    def __init__(self, data_dir: Path, log: Path, port: Optional[int] = None):
        self.data_dir = data_dir
        self.log_path = log
        self.port = port or free_port()
        self.process: Optional["subprocess.Popen[bytes]"] = None
        self._token: Optional[Dict[str, str]] = None

    @property
    def tag(self) -> str:
        """What the names of all this server's kernel objects have in common."""
        return tag_of(self.data_dir)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None, "the server is not started"
        return self.process.pid

    def command(self, *flags: str) -> List[str]:
        listen = f"127.0.0.1:{self.port}"
        return [str(HOMEPORT), "up", "--data-dir", str(self.data_dir), "--listen", listen, *flags]

    def start(self, *flags: str) -> "Server":
        """Starts the process and waits for its ready line."""
        offset = self.log_path.stat().st_size if self.log_path.exists() else 0
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command(*flags), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment()
            )

        def ready() -> bool:
            text = self.log(offset)
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode} before it was ready:\n{text}")
            return re.search(rf"^ready\b.*:{self.port}\b", text, re.MULTILINE) is not None

        try:
            wait_for("ready line", ready, READY_SECONDS)
        except AssertionError as error:
            self.kill()
            raise AssertionError(f"{error}\n{self.log(offset)}") from None
        return self

    def stop(self) -> None:
        """SIGTERM; the server must end by itself with 0 within ten seconds."""
        assert self.process is not None, "the server is not started"
        process, self.process = self.process, None
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the server did not end within {END_SECONDS} s of SIGTERM:\n{self.log()[-4000:]}") from None
        took = time.monotonic() - began
        assert code == 0, f"the server ended with {code} after SIGTERM ({took:.1f} s):\n{self.log()[-4000:]}"

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        if self.process is None:
            return
        process, self.process = self.process, None
        process.kill()
        process.wait()

    def token(self) -> Dict[str, str]:
        """A token of this server, made once."""
        if self._token is None:
            made = homeport("token", "create", "--name", "tests", data_dir=self.data_dir)
            assert made.returncode == 0, made.stdout + made.stderr
            self._token = dict(re.findall(r"^(MODAL_TOKEN_(?:ID|SECRET))=(\S+)$", made.stdout, re.MULTILINE))
            assert set(self._token) == {"MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET"}, made.stdout
        return self._token

    def log(self, offset: int = 0) -> str:
        if not self.log_path.exists():
            return ""
        with open(self.log_path, "rb") as log:
            log.seek(offset)
            return log.read().decode(errors="replace")

    def log_size(self) -> int:
        return self.log_path.stat().st_size

    def containers(self) -> List[str]:
        """The processes in its containers and build steps."""
        return containers(self.tag)

    def traces(self) -> FrozenSet[str]:
        """Everything that it has on the machine now."""
        return traces(self.tag, self.data_dir)

    def assert_no_traces(self, but: FrozenSet[str] = frozenset(), seconds: float = 10) -> None:
        assert_no_traces(self.tag, self.data_dir, but, seconds)


def _environment() -> Dict[str, str]:
    """The machine's own environment without settings meant for a client or another server."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MODAL_", "HOMEPORT_"))}
