"""Progress of long work, with the time left: a bar in a terminal and in Jupyter, elsewhere one line a stage."""

import os
import sys
import time
from typing import Any, Self


def duration(seconds: float) -> str:
    """Seconds as people write them: `9 s`, `4:05 min`, `2:03:00 h`."""
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60}:{rounded % 60:02d} min"
    return f"{rounded // 3600}:{rounded % 3600 // 60:02d}:{rounded % 60:02d} h"


class Progress:
    """Counts units of work towards a total; `stage` ends an epoch, a trial or a notebook with a line of its figures.

    `mode` is `auto` (a bar where one can be drawn, lines elsewhere), `lines` or `none`; `$TPSNET_PROGRESS` overrides
    auto. A bar is drawn with the first unit that ends later than `delay` seconds. Everything goes to standard error, so
    standard output stays free for results."""

    def __init__(self, total: int, label: str, *, start: int = 0, mode: str = "auto", delay: float = 0) -> None:
        self.label, self.total, self.start, self.done = label, total, start, start
        self.partial = 0.0  # units' worth of what is not yet done
        self.partial_before = 0.0  # of it, what was done before this began
        self.began = time.monotonic()
        mode = os.environ.get("TPSNET_PROGRESS", "auto") if mode == "auto" else mode
        self.lines = mode == "lines" or (mode == "auto" and not (_in_jupyter() or sys.stderr.isatty()))
        self.bar: Any = None
        if mode == "auto" and not self.lines:
            from tqdm.auto import tqdm  # a bar of Jupyter's in Jupyter; its import takes as long as all of `--help`

            self.bar = tqdm(total=total, initial=start, desc=label, leave=False, delay=delay)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def advance(self, units: int = 1) -> None:
        """Count units that are done."""
        self.done += units
        if self.bar is not None:
            self.bar.update(units)

    def time_left(self) -> str:
        """The time the rest will take at the rate so far."""
        worked = self.done - self.start + self.partial - self.partial_before
        if worked <= 0:
            return "?"
        return duration((time.monotonic() - self.began) / worked * (self.total - self.done - self.partial))

    def stage(self, text: str) -> None:
        """Show the figures of a stage, with the time left."""
        if self.bar is not None:
            self.bar.set_postfix_str(text)
        elif self.lines:
            print(f"{self.label}: {text}, {self.time_left()} left", file=sys.stderr, flush=True)


def running_shell() -> Any:
    """The IPython shell that runs this code, a notebook's or a terminal's; None in plain Python."""
    return sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None


def _in_jupyter() -> bool:
    return type(running_shell()).__name__ == "ZMQInteractiveShell"
