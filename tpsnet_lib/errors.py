"""The errors that a user can mend, and how a message quotes what is wrong."""

import difflib
import re
import reprlib
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

QUOTED = 200  # characters of a bad value that a message shows
_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 100
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")  # ends of lines, and what steers a terminal


class TpsnetError(Exception):
    """Something a user can mend; its message is one line that names the thing, its value and the way out."""

    def __str__(self) -> str:  # what it quotes may hold anything
        return _UNSEEN.sub(" ", super().__str__())

    def _render_traceback_(self) -> list[str]:  # what IPython asks for: a notebook shows the line and no traceback
        return [f"{type(self).__name__}: {self}"]


class ConfigError(TpsnetError):
    """A field of a config that is unknown, out of range, or describes a network that cannot be built."""


class DataError(TpsnetError):
    """A data set that is missing, damaged, or not what it claims to be."""


class RecordError(TpsnetError):
    """A record or checkpoint that is missing, torn, altered, or of another network."""


class TrainingError(TpsnetError):
    """A run that cannot go on (a loss that is not a number, a device that is not there)."""


class Interrupted(TpsnetError):  # noqa: N818 - a stop on request, not a fault
    """A run that was asked to stop and left a checkpoint behind; `requested` by a signal, not by its deadline."""

    requested = False


def brief(value: Any) -> str:
    """A value as a message quotes it, or the message of an error: on one line of at most 200 characters."""
    try:
        text = str(value) if isinstance(value, BaseException) else _BRIEF.repr(value)
    except (ValueError, RecursionError):  # a number with thousands of digits, lists in lists without end
        text = f"{type(value).__name__}, too large to show"
    text = " ".join(text.split()) or type(value).__name__
    return text if len(text) <= QUOTED else f"{text[: QUOTED - 3]}..."


def warn(line: str) -> None:
    """Tell the user something on standard error."""
    print(f"tpsnet: {line}", file=sys.stderr)


def way_to(word: str, known: Sequence[str]) -> str:
    """What may have been meant by a word that is not known, else what is known: the end of a message."""
    near = difflib.get_close_matches(word, known, 2, cutoff=0.8) or difflib.get_close_matches(word, known, 1)
    listed = textwrap.shorten(", ".join(known), 2 * QUOTED, placeholder=" ...")
    return f"did you mean {' or '.join(near)}?" if near else f"known are {listed}" if known else "none are known"
