"""Faults that tests of the project do by themselves, a file at most: each test, or case of one, is one fault here.

The short form leaves them out: the test suite, which calls it, has them."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from . import HANG, HELD, TRACEBACK, WRONG, NotHere, Outcome

PATIENCE = 1500  # seconds of an area
ROOT = Path(__file__).parents[2]
LOCKS = """
test_files.py: a_lock_is_free_again, a_file_system_without_locks, a_killed_process_left
test_local_backend.py: stopped, killed, dies_every_time, sigterm, minutes_leave
test_records.py: of_two_processes, interrupted
test_run_notebooks.py: sigterm, hangs
test_ray_backend.py: no_cluster_answers
test_openings.py: torn_last_line
"""
PROCESSORS = """
test_optimize.py: numba, torn, compiled_is_done, another_source, refuses, tiles
test_fast_kernels.py: the_number_of_threads
test_train.py: other_threads
test_compile_step.py: cannot
"""
MACHINES = """
test_machines.py: test
test_records.py: commit_is_that_of
test_data.py: archive
"""


def locks(short: bool) -> Iterator[Outcome]:
    """Processes that hold what others wait for."""
    yield from outcomes(LOCKS, short)


def processors(short: bool) -> Iterator[Outcome]:
    """Processors and caches."""
    yield from outcomes(PROCESSORS, short)


def machines(short: bool) -> Iterator[Outcome]:
    """Other people's machines."""
    yield from outcomes(MACHINES, short)


def outcomes(chosen: str, short: bool) -> Iterator[Outcome]:
    """What came of the chosen tests: a line of `chosen` names a file, and parts of its tests' names."""
    if short:
        raise NotHere("the test suite has these tests")
    for file, names in (line.split(": ") for line in chosen.strip().splitlines()):
        with tempfile.TemporaryDirectory(prefix="tpsnet-tests-") as folder:
            report = Path(folder) / "report.xml"
            call = [sys.executable, "-m", "pytest", f"tests/{file}", "-k", names.replace(", ", " or ")]
            call += [f"--junitxml={report}"]
            try:
                subprocess.run(call, cwd=ROOT, capture_output=True, timeout=PATIENCE, check=False)
            except subprocess.TimeoutExpired:
                yield Outcome(f"{file}: {names}", HANG)
                continue
            cases = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []
        if not cases:
            yield Outcome(f"{file}: {names}", WRONG, "no such test")
        for case in cases:
            failed = [child for child in case if child.tag in ("failure", "error")]
            if not failed and len(case):  # skipped: it cannot be tried here
                continue
            said = " ".join("".join(child.itertext()) for child in failed)
            ended = TRACEBACK if re.search("Traceback", said) else WRONG
            yield Outcome(f"{file}: {case.get('name')}", ended if failed else HELD, said[-400:])
