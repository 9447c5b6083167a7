"""The files of a record: how its parts are written, whole or not at all, with their sums; how the sums are checked."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpsnet_lib.config import RunConfig
from tpsnet_lib.files import RecordError, folder_whole, sha256_of, write_json, write_whole
from tpsnet_lib.model_cost import count_macs, count_parameters
from tpsnet_lib.runs.record_checks import read_sums

if TYPE_CHECKING:  # sums are checked without torch
    import torch

    from tpsnet_lib.train_state import TrainState

PARTS = ("config.json", "history.csv", "metrics.json", "provenance.json")  # of every record
WEIGHTS = "weights.safetensors"
SUMS = "SHA256SUMS"


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
        _write_history(work / "history.csv", history)
        write_json(work / "metrics.json", measured)
        write_json(work / "provenance.json", provenance)
        if model is not None:
            write_weights(work / WEIGHTS, model, config)
        write_sums(work)
        if (path / "test").is_dir():  # what was said on the test set, of a record that is trained again for its weights
            shutil.copytree(path / "test", work / "test")
    return path


def _write_history(path: Path, history: Sequence[dict[str, float]]) -> None:
    text = io.StringIO()
    table = csv.DictWriter(text, list(history[0]) if history else [], lineterminator="\n")
    table.writeheader()
    table.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in history)
    write_whole(path, text.getvalue())


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
