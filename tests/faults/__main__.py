"""`python -m tests.faults`: try every fault and print how many were tried, held, lost, ..., by area.

`--short` tries some of each area, as the test suite does; `--area NAME` (repeatable) only these; `--list` names them.
The exit code is 1 if anything but `held` came of a fault; each such fault is named on standard error."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from . import AREAS, ENDS, HELD, NotHere, tried


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--short", action="store_true", help="some faults of each area, within a minute")
    parser.add_argument("--area", action="append", choices=AREAS, help="only this area; may be repeated")
    parser.add_argument("--list", action="store_true", help="name the areas and end")
    options = parser.parse_args()
    if options.list:
        print(*(f"{name:12}{about}" for name, (_, about) in AREAS.items()), sep="\n")
        return 0
    total: Counter[str] = Counter()
    print(f"{'area':14}{'tried':>8}" + "".join(f"{end:>11}" for end in ENDS) + f"{'seconds':>10}", flush=True)
    for area in options.area or AREAS:
        began, counts = time.monotonic(), Counter[str]()
        try:
            for outcome in tried(area, options.short):
                counts[outcome.end] += 1
                if outcome.end != HELD:
                    print(f"{area}: {outcome.fault}: {outcome.end}: {outcome.said[:500]}", file=sys.stderr, flush=True)
        except NotHere as reason:
            print(f"{area:14} not tried: {reason}", flush=True)
            continue
        except KeyboardInterrupt:
            _row(f"{area}, part", counts)
            return 130
        _row(area, counts, f"{time.monotonic() - began:.0f}")
        total += counts
    _row("all", total)
    return 0 if total.total() == total[HELD] else 1


def _row(name: str, counts: Counter[str], seconds: str = "") -> None:
    print(
        f"{name:14}{counts.total():>8}" + "".join(f"{counts[end]:>11}" for end in ENDS) + f"{seconds:>10}", flush=True
    )


if __name__ == "__main__":
    sys.exit(main())
