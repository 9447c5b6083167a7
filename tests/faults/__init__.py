"""What is done to the project to see whether it holds: kills, full disks, bad files, hostile pages. An area is a module
here with a function `outcomes(short)` that yields an `Outcome` for each fault that it tried; `python -m tests.faults`
counts them."""

from __future__ import annotations

import importlib
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

HELD, LOST, RAN, TRACEBACK, HANG, WRONG = ENDS = "held", "lost", "ran", "traceback", "hang", "wrong"

AREAS = {  # name: its module here (and function, if not `outcomes`), and what is tried there
    "training": ("kills:training", "train, replace, fail: killed, cut off, interrupted at each file operation"),
    "opening": ("kills:opening", "open the test set, publish: the same"),
    "carrying": ("kills:carrying", "export, import: the same"),
    "bad_files": ("bad_files", "files of every kind that is read, changed at random or hostile by nature"),
    "pages": ("pages", "hostile HTML and SVG in every place of the report, in Chromium"),
    "locks": ("by_tests:locks", "locks of stopped and killed processes, requests to stop; by the tests of these"),
    "processors": ("by_tests:processors", "numba, its cache, AMX and threads that are not as they seem; by the tests"),
    "machines": ("by_tests:machines", "git, pip, matplotlib, Python and archives of other people; by the tests"),
    "disks": ("disks", "disks that are full, broken, read-only, without locks; names of the wrong kind"),
}


@dataclass(frozen=True)
class Outcome:
    """One fault that was tried and what came of it.

    `held`: what the project promises; `lost`: a record, result or line is gone or altered; `ran`: something hostile was
    executed, or called out; `traceback`, `hang`; `wrong`: anything else, such as words that do not name the file."""

    fault: str
    end: str
    said: str = ""


class NotHere(Exception):  # noqa: N818 - no error
    """An area that cannot be tried on this machine, and why."""


def tried(area: str, short: bool) -> Iterator[Outcome]:
    """The outcomes of an area; the short form tries a part of its faults, which the test suite does."""
    module, _, function = AREAS[area][0].partition(":")
    yield from getattr(importlib.import_module(f".{module}", __package__), function or "outcomes")(short)


def count(area: str, short: bool) -> tuple[str, Counter[str], str]:
    """How the faults of an area ended, and how many seconds they took, or why they were not tried."""
    began, counts = time.monotonic(), Counter[str]()
    try:
        for outcome in tried(area, short):
            counts[outcome.end] += 1
            if outcome.end != HELD:
                print(f"{area}: {outcome.fault}: {outcome.end}: {outcome.said[:500]}", file=sys.stderr, flush=True)
    except NotHere as reason:
        return area, Counter(), str(reason)
    return area, counts, f"{time.monotonic() - began:.0f}"
