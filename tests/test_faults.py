"""Nothing is lost, run or believed under faults: the short form of `python -m tests.faults`, area by area."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults import AREAS

PATIENCE = 900  # seconds; on two quiet cores the longest area takes a third of a minute
TRIED = [name for name, (place, _) in AREAS.items() if not place.startswith("by_tests")]  # the others are tests here


@pytest.mark.parametrize("area", TRIED)
def test_every_fault_is_held(area: str) -> None:
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "tests.faults", "--short", "--area", area]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    _, _, reason = done.stdout.partition(" not tried: ")
    if reason and not os.environ.get("TPSNET_AXE"):  # which says that a browser must be there
        pytest.skip(reason.splitlines()[0])
    assert not reason, done.stdout
