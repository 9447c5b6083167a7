"""`python -m tests.faults`: try every fault and print how many were tried, held, lost, ..., by area.

`--short` tries some of each area, as the test suite does; `--area NAME` (repeatable) only these; `--list` names them.
The exit code is 1 if anything but `held` came of a fault; each such fault is named on standard error."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from . import AREAS, ENDS, HELD, count


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--short", action="store_true", help="some faults of each area, within a minute")
    parser.add_argument("--area", action="append", choices=AREAS, help="only this area; may be repeated")
    parser.add_argument("--at-once", type=int, default=2, metavar="N", help="areas that are tried side by side")
    parser.add_argument("--list", action="store_true", help="name the areas and end")
    options = parser.parse_args()
    if options.list:
        print(*(f"{name:12}{about}" for name, (_, about) in AREAS.items()), sep="\n")
        return 0
    total: Counter[str] = Counter()
    print(f"{'area':14}{'tried':>8}" + "".join(f"{end:>11}" for end in ENDS) + f"{'seconds':>10}", flush=True)
    areas = options.area or list(AREAS)
    with ProcessPoolExecutor(options.at_once, get_context("spawn"), max_tasks_per_child=1) as pool:  # each may fork
        for area, counts, ended in pool.map(count, areas, [options.short] * len(areas)):
            if counts:
                _row(area, counts, ended)
            else:
                print(f"{area:14} not tried: {ended}", flush=True)
            total += counts
    _row("all", total)
    return 0 if total.total() == total[HELD] else 1


def _row(name: str, counts: Counter[str], seconds: str = "") -> None:
    print(
        f"{name:14}{counts.total():>8}" + "".join(f"{counts[end]:>11}" for end in ENDS) + f"{seconds:>10}", flush=True
    )


if __name__ == "__main__":
    sys.exit(main())
