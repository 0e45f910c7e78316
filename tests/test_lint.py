"""What `make lint` finds, in every run of the tests: a call in a test that no longer fits what it calls is found here.

basedpyright, which takes longer and reads the package alone, is left to `make lint`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

COMMANDS = (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",))


#: They run in an environment of their own.
APART = ("celery_app.py", "enqueue.py", "taskiq_app.py")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_there_is_nothing_to_find(command: tuple[str, ...]) -> None:
    assert f"$(BIN)/python -m {' '.join(command)}\n" in (ROOT / "Makefile").read_text(), "make lint runs the same"
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    if command == ("mypy",):
        files = [path for room in ("harkara", "tests", "bench") for path in (ROOT / room).rglob("*.py")]
        read = [path for path in files if path.name not in APART]
        assert f"no issues found in {len(read)} source files" in done.stdout, "every file is read"
