"""Nothing is lost, run or believed under faults: the short form of every area of `python -m tests.faults`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from faults import AREAS

PATIENCE = 300  # seconds of an area, which takes at most some fifteen


@pytest.mark.parametrize("area", AREAS)
def test_every_fault_is_held(area: str) -> None:
    command = [sys.executable, "-m", "tests.faults", "--short", "--area", area]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
