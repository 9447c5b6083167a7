"""Whatever a file of others holds, it is read or refused in one short line: drawn by hypothesis, kind by kind.

As it stands it draws the same 20 a kind each time; `TPSNET_FUZZ=300` draws so many new ones, for some minutes. The
files that are hostile by nature are in `tests/faults`, where the smallest of those that were not refused are added."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from faults import HELD
from faults.bad_files import try_kind
from faults.file_kinds import KINDS, Kind, tiny_checkpoint, tiny_record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ANEW = int(os.environ.get("TPSNET_FUZZ", "0"))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_changed_file_is_read_or_refused(kind: Kind, tmp_path: Path) -> None:
    tiny_record(), tiny_checkpoint()  # made before any clock runs

    @settings(
        max_examples=ANEW or 20,
        derandomize=not ANEW,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=bool(ANEW),
    )
    @given(st.randoms(use_true_random=False))
    def holds(rng: random.Random) -> None:
        outcome = try_kind(kind, tmp_path, 0, rng)
        assert outcome.end == HELD, outcome

    holds()
