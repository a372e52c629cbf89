"""Suites that others trust, on a mounted Volume, while what they change is committed underneath them.

The numbers are small, for every day; `scripts/soak.sh` runs the same for hours.
"""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Iterator, List, Tuple

import pytest

from harness.paths import ROOT

TOOLS = ROOT / ".tools" / "bin"
ON_VOLUME = ROOT / "target" / "release" / "examples" / "on_volume"
# How much longer than every day.
SOAK = int(os.environ.get("HOMEPORT_SOAK", "1"))

PJDFSTEST = """
[features]
posix_fallocate = {}

[settings]
# Longer than the clock of file times ticks.
naptime = 0.01
allow_remount = false

[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"], ["bin", "bin"]]
"""

FSX = """
flen = 1048576
[opsize]
max = 65536
[weights]
close_open = 2
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 2
fsync = 1
fdatasync = 1
punch_hole = 2
copy_file_range = 2
"""


@pytest.fixture(params=["disk", "xfs"])
def place(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory on the disk as it is, and one on a file system with reflinks."""
    for program in (ON_VOLUME, TOOLS / "pjdfstest", TOOLS / "fsx"):
        assert program.exists(), f"{program} is missing: scripts/suites.sh; cargo build --release -p homeport-fs --example on_volume"
    # Not pytest's own directory: suites act as other users, who must get there, and make sockets, whose paths are short.
    base = Path(tempfile.mkdtemp(prefix="hp-", dir="/tmp"))
    base.chmod(0o755)
    try:
        if request.param == "disk":
            yield base
            return
        image, target = base / "image", base / "x"
        target.mkdir()
        with image.open("wb") as file:
            file.truncate(2 << 30)
        run(["mkfs.xfs", "-q", "-m", "reflink=1", str(image)])
        run(["mount", "-o", "loop", str(image), str(target)])
        try:
            yield target
        finally:
            run(["umount", str(target)])
    finally:
        shutil.rmtree(base)


def run(command: List[str], timeout: float = 600 * SOAK) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout[-8000:]}{done.stderr[-4000:]}"
    return done.stdout


def on_volume(place: Path, script: str, *options: str) -> subprocess.CompletedProcess:
    command = [str(ON_VOLUME), "--dir", str(place), *options, "--", "sh", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=900 * SOAK)


def pjdfstest(place: Path, directory: str, *options: str) -> Tuple[List[str], subprocess.CompletedProcess]:
    """The names of the cases that failed, in a shell that is in `directory`."""
    configuration = place / "pjdfstest.toml"
    configuration.write_text(PJDFSTEST)
    done = on_volume(place, f'cd "{directory}" && {TOOLS}/pjdfstest -c {configuration} -p "$VOLUME"', *options)
    ended = re.findall(r"^(\w+::\S+)\s+(ok|FAILED|skipped)$", done.stdout, re.MULTILINE)
    passed = [name for name, how in ended if how == "ok"]
    assert len(passed) > 290, done.stdout[-4000:] + done.stderr[-4000:]
    assert "on_volume: " in done.stdout, "the Volume was not committed at the end"
    # The suite makes its character devices with the number 0:0, which is what an overlay marks removed names with.
    return [name for name, how in ended if how == "FAILED" and not name.endswith("::char")], done


def test_pjdfstest_finds_nothing_but_devices_that_overlays_keep_for_themselves(place: Path) -> None:
    failed, done = pjdfstest(place, "$VOLUME")
    assert not failed, done.stdout


def test_pjdfstest_finds_no_more_on_files_that_are_committed_between_its_calls(place: Path) -> None:
    # Nobody stays in the Volume, so files are adopted and newer versions shown while the cases run.
    adopted = 0
    for _ in range(SOAK):
        failed, done = pjdfstest(place, "/", "--take", "2")
        # Sockets are not committed: one that no process has bound goes with the layer that it was in.
        assert not [name for name in failed if not name.endswith("::socket")], done.stdout
        takes, shown = map(int, re.search(r"(\d+) with changes, (\d+) versions shown", done.stdout).groups())
        assert takes > 10, done.stdout
        adopted += shown
    assert adopted > 0, "every file was in use at every commit"


@pytest.mark.parametrize("committed", [False, True], ids=["new", "committed"])
def test_fsx_reads_what_it_wrote_while_it_is_committed(place: Path, tmp_path: Path, committed: bool) -> None:
    configuration = tmp_path / "fsx.toml"
    configuration.write_text(FSX)
    options = ["--take", "40"]
    if committed:
        directory = tmp_path / "committed"
        directory.mkdir()
        (directory / "file").write_bytes(os.urandom(700_000))
        options += ["--committed", str(directory)]
    # Many runs, not a long one: fsx leaves a part of each mapping behind, and the kernel allows a process 65,530.
    first = 1000 * (1 + committed)
    seeds = f"seq {first} {first + SOAK - 1}"
    one = f'{TOOLS}/fsx -f {configuration} -N 20000 -S $seed -P {tmp_path} "$VOLUME/file"'
    done = on_volume(place, f"for seed in $({seeds}); do {one} || exit; done", *options)
    assert done.returncode == 0 and done.stdout.count("A-OK") == SOAK, done.stdout[-4000:] + done.stderr[-4000:]
    takes, changes = map(int, re.search(r"on_volume: (\d+) takes, (\d+) with changes", done.stdout).groups())
    assert takes > 20 and changes > 20, done.stdout


@pytest.mark.parametrize("engine", ["psync", "mmap", "libaio"])
def test_fio_verifies_what_it_wrote_to_a_committed_file(place: Path, tmp_path: Path, engine: str) -> None:
    directory = tmp_path / "committed"
    directory.mkdir()
    (directory / "file").write_bytes(os.urandom(16 << 20))
    direct = 1 if engine == "libaio" else 0
    script = (
        f'fio --name=verify --filename="$VOLUME/file" --size={16 * SOAK}M --rw=randrw --bs=4k --ioengine={engine} '
        f"--direct={direct} --verify=crc32c --do_verify=1 --verify_fatal=1 --verify_state_save=0 --randseed=7 --minimal"
    )
    done = on_volume(place, script, "--take", "100", "--committed", str(directory))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
