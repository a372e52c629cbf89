"""A real client of one version, as its user runs it."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from .matrix import ClientVersion
from .paths import EXAMPLES, PROGRAMS
from .server import Server

RESULT = "RESULT "


@dataclass
class Run:
    """What a finished client process wrote and how it ended."""

    command: List[str]
    code: int
    output: str
    seconds: float

    @property
    def results(self) -> Dict[str, Any]:
        """What the program reported in `RESULT {…}` lines, by name."""
        found = {}
        for text in self.output.split(RESULT)[1:]:
            # Output of a function may follow on the same line.
            found.update(json.JSONDecoder().raw_decode(text)[0])
        assert found, f"the program reported nothing:\n{self}"
        return found

    @property
    def flat(self) -> str:
        """The output without the frames and line breaks that the client draws around a message."""
        return re.sub(r"[\s│╭╮╰╯─]+", " ", self.output)

    def __str__(self) -> str:
        return f"{' '.join(self.command)}\nended with {self.code} after {self.seconds:.1f} s:\n{self.output}"


@dataclass
class Running:
    """A client process that still runs; its lines are collected with the time of their arrival."""

    process: "subprocess.Popen[str]"
    command: List[str]
    began: float = field(default_factory=time.monotonic)
    lines: List[Tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((time.monotonic() - self.began, line.rstrip("\n")))

    @property
    def output(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def wait_for_line(self, text: str, seconds: float) -> float:
        """Waits until `text` is in a line; the answer is when that line came, in seconds after the start."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for moment, line in list(self.lines):
                if text in line:
                    return moment
            if self.process.poll() is not None and not self._reader.is_alive():
                break
            time.sleep(0.05)
        raise AssertionError(f"no line with {text!r} within {seconds:g} s:\n{self.output}")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float) -> Run:
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise AssertionError(f"{' '.join(self.command)} still ran after {seconds:g} s:\n{self.output}") from None
        self._reader.join(5)
        return Run(self.command, code, self.output, time.monotonic() - self.began)

    def end(self) -> None:
        """Kills it if it still runs: for the end of a test."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Client:
    """Runs programs with one client version against one server, in a home directory of its own."""

    def __init__(self, version: ClientVersion, server: Server, home: Path):
        self.version = version
        self.server = server
        self.home = home
        # Variables for all programs of this client.
        self.defaults: Dict[str, str] = {}

    def environment(self, **changes: Optional[str]) -> Dict[str, str]:
        """The variables of a user's shell after `eval "$(homeport env)"`; None takes one away."""
        variables: Dict[str, Optional[str]] = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "COLUMNS": "200",
            "PYTHONPATH": f"{PROGRAMS}:{EXAMPLES}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "MODAL_CONFIG_PATH": str(self.home / "modal.toml"),
            "MODAL_SERVER_URL": self.server.url,
            **self.server.token(),
            **self.defaults,
            **changes,
        }
        return {name: value for name, value in variables.items() if value is not None}

    def begin(self, *arguments: str, **changes: Optional[str]) -> Running:
        """Starts `python ARGUMENTS` with this version's interpreter, in a process group of its own."""
        command = [str(self.version.python), *arguments]
        process = subprocess.Popen(
            command,
            cwd=PROGRAMS,
            env=self.environment(**changes),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            # A suite that runs in the background of a shell ignores SIGINT, and the client would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        return Running(process, command)

    def python(self, *arguments: str, timeout: float = 180, check: bool = True, **changes: Optional[str]) -> Run:
        """A plain Python program."""
        run = self.begin(*arguments, **changes).wait(timeout)
        assert not check or run.code == 0, str(run)
        return run

    def modal(self, *arguments: str, timeout: float = 180, check: bool = True, **changes: Optional[str]) -> Run:
        """The client's command line."""
        return self.python("-m", "modal", *arguments, timeout=timeout, check=check, **changes)

    def run(self, program: str, *arguments: str, timeout: float = 180, check: bool = True, **changes: Optional[str]) -> Run:
        """`modal run program.py[::name] arguments`."""
        return self.modal("run", program, *arguments, timeout=timeout, check=check, **changes)

    def begin_run(self, program: str, *arguments: str, **changes: Optional[str]) -> Running:
        return self.begin("-m", "modal", "run", program, *arguments, **changes)

    def app_command(self, verb: str, app: str, *, by_name: bool, timeout: float = 60, check: bool = True) -> Run:
        """`modal app logs` or `modal app stop` in the form that this version wants."""
        named = ["--name", app] if by_name and self.version.names_apps_by_flag else [app]
        sure = ["--yes"] if verb == "stop" and self.version.stop_asks else []
        return self.modal("app", verb, *named, *sure, timeout=timeout, check=check)
