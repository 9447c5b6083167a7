"""Nothing is lost, run or believed under faults: the short form of `python -m tests.faults`, all areas."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PATIENCE = 900  # seconds; on two quiet cores it takes one minute


def test_every_fault_is_held() -> None:
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "tests.faults", "--short"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
