"""Nothing is lost, run or believed under faults: the short form of `python -m tests.faults`, area by area."""

from __future__ import annotations

import os

import pytest
from faults import AREAS
from forks import run

TRIED = [name for name, (place, _) in AREAS.items() if not place.startswith("by_tests")]  # the others are tests here
COUNT = """
import sys
from faults import HELD, count
area, counts, ended = count(sys.argv[1], short=True)
print(ended if not counts else "")
sys.exit(counts.total() != counts[HELD])
"""


@pytest.mark.slow
@pytest.mark.parametrize("area", TRIED)
def test_every_fault_is_held(area: str) -> None:
    done = run(COUNT, area)
    assert done.returncode == 0, done.stderr
    reason = done.stdout.strip()  # why it was not tried
    if reason and not os.environ.get("TPSNET_AXE"):  # which says that a browser must be there
        pytest.skip(reason)
    assert not reason
