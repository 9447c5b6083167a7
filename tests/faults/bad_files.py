"""Bad files: a valid file of every kind that the project reads, changed at random, goes to the code that reads it.

Whatever is in it, it is read, or refused in one short line that names it: no traceback, no wait, nothing run, nothing
left in the store. `KINDS` are also what the test suite draws from with hypothesis."""

from __future__ import annotations

import functools
import os
import random
import signal
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from tpsnet_lib.errors import TpsnetError
from tpsnet_lib.profiles import load_profile
from tpsnet_lib.report import run_notebooks

from . import HANG, HELD, RAN, TRACEBACK, WRONG, Outcome
from .file_kinds import KINDS, Kind, tiny_checkpoint, tiny_record
from .mutations import HIT
from .special_files import SPECIAL

PATIENCE = 10  # seconds of the processor for one file
WAIT = 120  # seconds by the clock: others may use the processor too
LONGEST = 700  # characters of a message without the file's path


class Waited(BaseException):
    """A file was not read or refused within its time. No `except Exception` of a reader hides it."""


def outcomes(short: bool) -> Iterator[Outcome]:
    """Each kind with so many changes, and the files that are hostile by their nature; the short form takes these alone,
    as the test suite draws changes of each kind itself."""
    tiny_record(), tiny_checkpoint()  # made before the clock runs, as are the validators that nbformat compiles
    run_notebooks.parameters_for(run_notebooks.choose(["01"])[0], load_profile("smoke"))
    with tempfile.TemporaryDirectory(prefix="tpsnet-files-") as folder:
        for number, (name, special) in enumerate(SPECIAL.items()):
            yield tried(f"special/{name}", Path(folder) / f"special{number}", special)
        for kind in KINDS:
            place = Path(folder) / kind.name
            for number in range(0 if short else kind.count):
                yield try_kind(kind, place, number)


def try_kind(kind: Kind, place: Path, number: int, rng: random.Random | None = None) -> Outcome:
    """The outcome of one changed file of a kind, by its number, or by what a random generator draws."""
    rng = rng or random.Random(f"{kind.name} {number}")
    return tried(f"{kind.name}/{number}", place, lambda folder: kind.read_changed(folder, rng))


def tried(fault: str, folder: Path, read: Any) -> Outcome:
    """What came of reading a file in a folder; the file's path is what `read` raises `TpsnetError` about."""
    folder.mkdir(parents=True, exist_ok=True)
    before = os.getcwd()
    os.chdir(folder)
    try:
        with time_limit(PATIENCE), open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            read(folder)
        end, said = HELD, ""
    except TpsnetError as error:
        said = str(error)
        end = HELD if _is_good_message(said, folder) else WRONG
    except Waited as error:
        end, said = HANG, _place(error)
    except Exception as error:
        end, said = TRACEBACK, f"{type(error).__name__}: {str(error)[:200]} {_place(error)}"
    finally:
        os.chdir(before)
    if (folder / HIT).exists():
        (folder / HIT).unlink()
        end, said = RAN, "a command in the file was executed"
    if list(folder.rglob(".locks/*")):
        end, said = WRONG, "a lock stayed in the store"
    return Outcome(fault, end, said)


def _place(error: BaseException) -> str:
    """The last lines of code that an error went through."""
    frames = traceback.extract_tb(error.__traceback__)[-5:]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))


def _is_good_message(said: str, folder: Path) -> bool:
    """Whether a message is one short line that names the file, by its path or, for an option, by its word."""
    named = str(folder) in said or "--set" in said or "parameter" in said
    return named and "\n" not in said and len(said.replace(str(folder), "")) <= LONGEST


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `Waited` after some seconds of work or of waiting, again every second: a reader may catch the first."""

    def ring(*_: object) -> None:
        raise Waited

    alarms = {signal.SIGALRM: (signal.ITIMER_REAL, WAIT), signal.SIGPROF: (signal.ITIMER_PROF, seconds)}
    before = {number: signal.signal(number, ring) for number in alarms}
    for timer, limit in alarms.values():
        signal.setitimer(timer, limit, 1)
    try:
        yield
    finally:
        for number, (timer, _) in alarms.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


@functools.cache
def kind_named(name: str) -> Kind:
    """A kind by its name."""
    return next(kind for kind in KINDS if kind.name == name)
