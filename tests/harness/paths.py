"""Where things are in the repository."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
PROGRAMS = TESTS / "programs"
EXAMPLES = ROOT / "examples"
# Base images and installed layers stay here from one run of the suite to the next.
CACHE = Path(os.environ.get("HOMEPORT_TEST_CACHE", ROOT / ".cache" / "e2e"))
VENVS = ROOT / ".venvs"
HOMEPORT = Path(os.environ.get("HOMEPORT_BINARY", ROOT / "target" / "release" / "homeport"))
