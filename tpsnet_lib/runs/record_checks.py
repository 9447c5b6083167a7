"""What the files of a record must hold before anything is computed or shown from them: names, types and ranges.

Sums show that a record was not changed since it was written; they say nothing of who wrote it."""

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpsnet_lib.files import RecordError, brief, read_text

WAY_OUT = "restore it from where it came, or delete it and run it again"
_SUM = re.compile(r"([0-9a-f]{64})  ([\w.-]+(?:/[\w.-]+)?)")


@dataclass(frozen=True)
class Rule:
    """What a value may be: of a type, a number within a range, a text of at most 2,000 characters."""

    kind: type | tuple[type, ...]
    low: float = -1e300
    high: float = 1e300

    def allows(self, value: Any) -> bool:
        """Whether a value is one of these; true and false are no numbers."""
        if not isinstance(value, self.kind) or (isinstance(value, bool) and self.kind is not bool):
            return False
        if isinstance(value, str):
            return len(value) <= 2000
        return not isinstance(value, (int, float)) or self.low <= value <= self.high


TEXT, NUMBER = Rule(str), Rule((int, float))
SHARE, COUNT = Rule((int, float), 0, 1), Rule(int, 0, 2**50)
_MEASURED = {  # by a run that was finished
    **dict.fromkeys(("train_accuracy", "validation_accuracy"), SHARE),
    **dict.fromkeys(("train_loss", "validation_loss", "seconds", "images_per_second"), Rule((int, float), 0, 1e15)),
    "epochs": Rule((int, float), 0, 1e5),
    **dict.fromkeys(("parameters", "macs"), COUNT),
}
_ORIGIN = {
    **dict.fromkeys(("started", "finished", "host", "command", "commit", "device", "hardware", "execution"), TEXT),
    "fingerprint": Rule(dict),
    "threads": Rule(int),
}
_SCORES = {"n": Rule(int, 1, 2**40), "correct": COUNT, **dict.fromkeys(("low", "accuracy", "high"), SHARE)}
_EXACT_SCORES = {f"exact_{name}": rule for name, rule in _SCORES.items()}


def checked(source: str, tree: Any, rules: Mapping[str, Rule], needed: Iterable[str] = ()) -> dict[str, Any]:
    """A mapping as it is; `RecordError` for what is needed and missing, and for a value against its rule."""
    if not isinstance(tree, dict):
        raise RecordError(f"{source} is {brief(tree)}, no mapping: {WAY_OUT}")
    for name in {*needed, *(rules.keys() & tree.keys())}:
        if not rules[name].allows(tree.get(name)):
            raise RecordError(f"{source}: {name} is {brief(tree.get(name))}, which cannot be: {WAY_OUT}")
    return dict(tree)


def read_sums(path: Path) -> dict[str, str]:
    """The SHA-256 of each file that a list of sums names; a line that is none is a `RecordError` with its number."""
    sums = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if (match := _SUM.fullmatch(line)) is None:
            raise RecordError(f"{path}: line {number} is torn, {brief(line)} is no SHA-256 with a name: {WAY_OUT}")
        sums[match[2]] = match[1]
    return sums


def checked_metrics(source: str, metrics: Any, needed: Iterable[str] = _MEASURED) -> dict[str, Any]:
    """A record's metrics as they are; `RecordError` for what is needed and missing, and for what no run measures."""
    failed = isinstance(metrics, dict) and "failed" in metrics
    return checked(source, metrics, {"failed": TEXT, **_MEASURED}, () if failed else needed)


def checked_provenance(source: str, provenance: Any) -> dict[str, Any]:
    """Where a record was made, as it is; `RecordError` for an entry of another type."""
    origin = checked(source, provenance, _ORIGIN, ["fingerprint"])
    checked(f"{source}: fingerprint", origin["fingerprint"], {"stamp": TEXT}, ["stamp"])
    return origin


def checked_curve(source: str, rows: Any) -> tuple[dict[str, float], ...]:
    """The figures of a run's epochs; `RecordError` for a row that is not names with numbers."""
    if not isinstance(rows, (list, tuple)):
        raise RecordError(f"{source}: the history is {brief(rows)}, no list of rows: {WAY_OUT}")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not all(isinstance(key, str) and NUMBER.allows(row[key]) for key in row):
            raise RecordError(f"{source}: row {number} of the history is {brief(row)}, no numbers by name: {WAY_OUT}")
    return tuple({name: float(value) for name, value in row.items()} for row in rows)


def read_history(path: Path) -> tuple[dict[str, float], ...]:
    """The rows of a `history.csv`, checked as `checked_curve` does; `RecordError` for what is no such table."""
    try:
        table = csv.DictReader(read_text(path).splitlines(), strict=True)
        rows = [{key: float(value) for key, value in row.items()} for row in table]
    except (csv.Error, ValueError, TypeError) as error:  # a row too long has a list, one too short None
        raise RecordError(f"{path} is no table of numbers ({brief(error)}): {WAY_OUT}") from error
    return checked_curve(str(path), rows)


def checked_scores(path: Path, scores: Any) -> dict[str, Any]:
    """The scores on the test set as they are; `RecordError` for what is missing or out of its range."""
    exact = isinstance(scores, dict) and "exact_n" in scores
    needed = ["opened", *_SCORES, *(_EXACT_SCORES if exact else ())]
    counted = checked(str(path), scores, {"opened": TEXT, **_SCORES, **_EXACT_SCORES}, needed)
    for kind in ("", "exact_") if exact else ("",):
        accuracy, correct, count = (counted[f"{kind}{name}"] for name in ("accuracy", "correct", "n"))
        if correct > count or abs(accuracy - correct / count) > 1e-9:
            raise RecordError(f"{path}: accuracy {accuracy:g} is not {correct} of {count}: {WAY_OUT}")
    return counted
