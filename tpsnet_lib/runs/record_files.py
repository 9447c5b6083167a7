"""The files of a record: how its parts are written, whole or not at all, with their sums; what they must hold (names,
types and ranges) before anything is computed or shown from them.

Sums show that a record was not changed since it was written; they say nothing of who wrote it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpsnet_lib.config import RunConfig
from tpsnet_lib.errors import RecordError, brief
from tpsnet_lib.files import read_text, sha256_of
from tpsnet_lib.model_cost import count_macs, count_parameters
from tpsnet_lib.whole_files import folder_whole, write_json, write_whole

if TYPE_CHECKING:  # sums are checked without torch
    import torch

    from tpsnet_lib.train_state import TrainState

PARTS = ("config.json", "history.csv", "metrics.json", "provenance.json")  # of every record
WEIGHTS = "weights.safetensors"
SUMS = "SHA256SUMS"
WAY_OUT = "restore it from where it came, or delete it and run it again"
_SUM = re.compile(r"([0-9a-f]{64})  ([\w.-]+(?:/[\w.-]+)?)")


def row_sum(content: Any) -> str:
    """The digest under which a row of a file of trials is kept."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_sums(folder: Path, names: Iterable[str] = (), listing: str = SUMS) -> None:
    """Compare files, by default all that are listed, with the sums written beside them; the first that differs is a
    `RecordError` that names it."""
    if not (folder / listing).is_file():
        raise RecordError(f"{folder} is half-written: it has no {listing}; delete it and run it again")
    expected = read_sums(folder / listing)
    for name in names or expected:
        if not (folder / name).is_file():
            raise RecordError(f"{folder / name} is missing: the record is not whole")
        if expected.get(name) != sha256_of(folder / name):
            raise RecordError(f"{folder / name} is altered: its SHA-256 is not the one in {listing}")


def write_sums(folder: Path, names: Iterable[str] = (), listing: str = SUMS) -> None:
    """Write the sums of files, by default all that lie directly in a folder."""
    names = names or sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != listing)
    write_whole(folder / listing, "".join(f"{sha256_of(folder / name)}  {name}\n" for name in names))


def read_sums(path: Path) -> dict[str, str]:
    """The SHA-256 of each file that a list of sums names; a line that is none is a `RecordError` with its number."""
    sums = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if (match := _SUM.fullmatch(line)) is None:
            raise RecordError(f"{path}: line {number} is torn, {brief(line)} is no SHA-256 with a name: {WAY_OUT}")
        sums[match[2]] = match[1]
    return sums


def write_record(
    folder: Path, config: RunConfig, fitted: TrainState, provenance: dict[str, Any], keep_weights: bool = True
) -> Path:
    """Write a finished run as the folder `folder/<id>`, whole or not at all; one kept without weights is replaced."""
    last_row = fitted.history[-1]
    names = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
    measured = {
        **{name: last_row[name] for name in names},
        "epochs": last_row["epoch"],
        "seconds": fitted.seconds,
        "images_per_second": fitted.images_per_second,
    }
    if config.data.fit_on == "split":  # what the calibration of a sibling fitted on all images needs of this run
        measured["temperature"] = fitted.temperature
    model = fitted.model if keep_weights else None
    return _write_parts(folder / config.id, config, fitted.history, measured, provenance, model)


def write_failure(folder: Path, config: RunConfig, reason: str, provenance: dict[str, Any]) -> Path:
    """Write a run that cannot be finished as a record that says why, so that no search tries it again."""
    return _write_parts(folder / config.id, config, [], {"failed": reason}, provenance, None)


def _write_parts(
    path: Path,
    config: RunConfig,
    history: Sequence[dict[str, float]],
    measured: dict[str, Any],
    provenance: dict[str, Any],
    model: torch.nn.Module | None,
) -> Path:
    measured = {**measured, "parameters": count_parameters(config.model), "macs": count_macs(config.model)}
    with folder_whole(path, replace=True) as work:
        write_json(work / "config.json", {"id": config.id, "group_id": config.group_id, "config": config.to_dict()})
        write_whole(work / "history.csv", history_as_csv(history))
        write_json(work / "metrics.json", measured)
        write_json(work / "provenance.json", provenance)
        if model is not None:
            write_weights(work / WEIGHTS, model, config)
        write_sums(work)
        if (path / "test").is_dir():  # what was said on the test set, of a record that is trained again for its weights
            shutil.copytree(path / "test", work / "test")
    return path


def history_as_csv(history: Sequence[Mapping[str, float]]) -> str:
    """An epoch a line, below the names of its figures."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(history[0]) if history else [], lineterminator="\n")
    table.writeheader()
    table.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in history)
    return text.getvalue()


def read_history(path: Path) -> tuple[dict[str, float], ...]:
    """The rows of a `history.csv`, checked as `checked_curve` does; `RecordError` for what is no such table."""
    try:
        table = csv.DictReader(read_text(path).splitlines(), strict=True)
        rows = [{key: float(value) for key, value in row.items()} for row in table]
    except (csv.Error, ValueError, TypeError) as error:  # a row too long has a list, one too short None
        raise RecordError(f"{path} is no table of numbers ({brief(error)}): {WAY_OUT}") from error
    return checked_curve(str(path), rows)


def write_weights(path: Path, model: torch.nn.Module, config: RunConfig) -> None:
    """Write a network's weights as safetensors with its config in the metadata: matrices and kernels in half precision,
    in which they are scored and published; norms and biases in fp32."""
    from safetensors.torch import save

    values = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    state = {name: value.half() if value.ndim > 1 else value for name, value in values.items()}
    metadata = {"id": config.id, "config": json.dumps(config.to_dict()), "format": "pt"}
    write_whole(path, _in_order(save(state, metadata)))


def _in_order(data: bytes) -> bytes:
    """A safetensors file whose metadata are sorted: the library writes them in any order, and so other bytes each time.

    The file begins with the length of its JSON header (8 bytes), which may end in spaces."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]


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


def checked_metrics(source: str, metrics: Any, needed: Iterable[str] = _MEASURED) -> dict[str, Any]:
    """A record's metrics as they are; `RecordError` for what is needed and missing, and for what no run measures."""
    failed = isinstance(metrics, dict) and "failed" in metrics
    return checked(source, metrics, {"failed": TEXT, **_MEASURED}, () if failed else needed)


def checked_provenance(source: str, provenance: Any) -> dict[str, Any]:
    """Where a record was made, as it is; `RecordError` for an entry of another type."""
    origin = checked(source, provenance, _ORIGIN, ["fingerprint"])
    checked(f"{source}: fingerprint", origin["fingerprint"], {"stamp": TEXT}, ["stamp"])
    for name in ("started", "finished"):
        try:
            datetime.fromisoformat(origin.get(name) or "1970-01-01")
        except ValueError as error:
            raise RecordError(f"{source}: {name} is {brief(origin[name])}, no date and time: {WAY_OUT}") from error
    return origin


def checked_curve(source: str, rows: Any) -> tuple[dict[str, float], ...]:
    """The figures of a run's epochs; `RecordError` for a row that is not names with numbers."""
    if not isinstance(rows, (list, tuple)):
        raise RecordError(f"{source}: the history is {brief(rows)}, no list of rows: {WAY_OUT}")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not all(isinstance(key, str) and NUMBER.allows(row[key]) for key in row):
            raise RecordError(f"{source}: row {number} of the history is {brief(row)}, no numbers by name: {WAY_OUT}")
    return tuple({name: float(value) for name, value in row.items()} for row in rows)


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
