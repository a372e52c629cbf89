"""Every example of docs/volumes.md, run as it stands."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from harness.client import Client
from harness.paths import HOMEPORT, ROOT

PAGE = ROOT / "docs" / "volumes.md"
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.once
def test_every_example_of_the_page_does_what_the_page_says(client: Client, tmp_path: Path) -> None:
    blocks = BLOCK.findall(PAGE.read_text())
    assert len(blocks) >= 6, "the page has lost its examples"
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, target in {"modal": f'"{client.version.python}" -m modal', "homeport": f'"{HOMEPORT}"'}.items():
        command = commands / name
        command.write_text(f'#!/bin/sh\nexec {target} "$@"\n')
        command.chmod(0o755)
    variables = client.environment(PYTHONPATH=None)
    variables["PATH"] = f"{commands}:{variables['PATH']}"
    variables["HOMEPORT_DATA_DIR"] = str(client.server.data_dir)
    # What an earlier run left under the names of the page.
    for name in sorted({name for _, text in blocks for name in re.findall(r"docs-[a-z-]+", text)}):
        subprocess.run([commands / "modal", "volume", "delete", name, "--yes"], env=variables, capture_output=True)
    for number, (language, text) in enumerate(blocks):
        script = tmp_path / f"example_{number}.{'py' if language == 'python' else 'sh'}"
        script.write_text(text)
        command = [commands / "modal", "run", script] if language == "python" else ["bash", "-euxo", "pipefail", script]
        done = subprocess.run(
            command, env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, f"example {number} of {os.path.relpath(PAGE, ROOT)}:\n{text}\n{done.stdout}{done.stderr}"
