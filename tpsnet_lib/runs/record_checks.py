"""What the files of a record must hold before anything is computed or shown from them: names, types and ranges.

Sums show that a record was not changed since it was written; they say nothing of who wrote it."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tpsnet_lib.files import RecordError, brief, read_text

WAY_OUT = "restore it from where it came, or delete it and run it again"
_COUNTS = ("parameters", "macs")
NUMBERS = {  # that a finished run measures, with the largest that is believed
    **dict.fromkeys(("train_accuracy", "validation_accuracy"), 1.0),
    **dict.fromkeys(("train_loss", "validation_loss", "seconds", "images_per_second"), 1e15),
    "epochs": 1e5,
    **dict.fromkeys(_COUNTS, 1e15),
}
_TEXTS = ("started", "finished", "host", "command", "commit", "device", "hardware", "execution")
_LONGEST = 2000  # characters of a text in a record
_SUM = re.compile(r"([0-9a-f]{64})  ([\w.-]+(?:/[\w.-]+)?)")


def read_sums(path: Path) -> dict[str, str]:
    """The SHA-256 of each file that a list of sums names; a line that is none is a `RecordError` with its number."""
    sums = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if (match := _SUM.fullmatch(line)) is None:
            raise RecordError(f"{path}: line {number} is torn, {brief(line)} is no SHA-256 with a name: {WAY_OUT}")
        sums[match[2]] = match[1]
    return sums


def checked_metrics(source: str, metrics: Any, needed: Iterable[str] = NUMBERS) -> dict[str, Any]:
    """A record's metrics as they are; `RecordError` for what is needed and missing, and for what no run measures."""
    _check_mapping(source, "metrics", metrics)
    failed = "failed" in metrics
    _check_text(source, "failed", metrics.get("failed", ""))
    for name in {*(() if failed else needed), *(NUMBERS.keys() & metrics.keys())}:
        value = metrics.get(name)
        if not _is_number(value) or not 0 <= value <= NUMBERS[name] or (name in _COUNTS and not isinstance(value, int)):
            raise RecordError(f"{source}: {name} is {brief(value)}, which no run measures: {WAY_OUT}")
    return dict(metrics)


def checked_provenance(source: str, provenance: Any) -> dict[str, Any]:
    """Where a record was made, as it is; `RecordError` for an entry of another type."""
    _check_mapping(source, "provenance", provenance)
    _check_mapping(source, "fingerprint", provenance.get("fingerprint"))
    _check_text(source, "stamp", provenance["fingerprint"].get("stamp"))
    for name in _TEXTS:
        _check_text(source, name, provenance.get(name, ""))
    if not isinstance(provenance.get("threads", 1), int):
        raise RecordError(f"{source}: threads is {brief(provenance['threads'])}, no count: {WAY_OUT}")
    return dict(provenance)


def checked_curve(source: str, rows: Any) -> tuple[dict[str, float], ...]:
    """The figures of a run's epochs; `RecordError` for a row that is not names with numbers."""
    if not isinstance(rows, (list, tuple)):
        raise RecordError(f"{source}: the history is {brief(rows)}, no list of rows: {WAY_OUT}")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not all(isinstance(key, str) and _is_number(row[key]) for key in row):
            raise RecordError(f"{source}: row {number} of the history is {brief(row)}, no numbers by name: {WAY_OUT}")
    return tuple({name: float(value) for name, value in row.items()} for row in rows)


def read_history(path: Path) -> tuple[dict[str, float], ...]:
    """The rows of a `history.csv`, checked as `checked_curve` does."""
    try:
        table = csv.DictReader(read_text(path).splitlines(), strict=True)
        rows = [{key: float(value) for key, value in row.items()} for row in table]
    except (csv.Error, ValueError, TypeError) as error:  # a row too long has a list, one too short None
        raise RecordError(f"{path} is no table of numbers ({brief(error)}): {WAY_OUT}") from error
    return checked_curve(str(path), rows)


def checked_scores(path: Path, scores: Any) -> dict[str, Any]:
    """The scores on the test set as they are; `RecordError` for what is missing or out of its range."""
    _check_mapping(str(path), "the result", scores)
    _check_text(str(path), "opened", scores.get("opened"))
    kinds = ("", "exact_") if "exact_n" in scores else ("",)
    for kind in kinds:
        count, correct = scores.get(f"{kind}n"), scores.get(f"{kind}correct")
        shares = [scores.get(f"{kind}{name}") for name in ("low", "accuracy", "high")]
        if type(count) is not int or type(correct) is not int or not 0 <= correct <= count or not 0 < count < 2**40:
            raise RecordError(f"{path}: {brief(correct)} correct of {brief(count)} is no count: {WAY_OUT}")
        if not all(_is_number(share) and 0 <= share <= 1 for share in shares):
            raise RecordError(f"{path}: {brief(shares)} is no accuracy with its interval: {WAY_OUT}")
        if abs(float(shares[1] or 0) - correct / count) > 1e-9:
            raise RecordError(f"{path}: accuracy {brief(shares[1])} is not {correct} of {count}: {WAY_OUT}")
    return dict(scores)


def _check_mapping(source: str, name: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise RecordError(f"{source}: {name} is {brief(value)}, no mapping: {WAY_OUT}")


def _check_text(source: str, name: str, value: Any) -> None:
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise RecordError(f"{source}: {name} is {brief(value)}, no text of at most {_LONGEST} characters: {WAY_OUT}")


def _is_number(value: Any) -> bool:
    """Whether it is a number that a float holds."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 < value < 1e300
