"""Opening the test set: once a record, only for what was declared final, and never without a line that says so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tpsnet_lib import metrics, stats
from tpsnet_lib.data.datasets import inexact_indices, load_test, test_fingerprint
from tpsnet_lib.device import resolve_device
from tpsnet_lib.files import RecordError, append_line, folder_whole, lock, read_json, write_json
from tpsnet_lib.runs.experiments import final_ids
from tpsnet_lib.runs.provenance import commit, hardware, now
from tpsnet_lib.runs.records import (
    Record,
    Store,
    check_sums,
    committed_folder,
    default_store,
    local_folder,
    write_sums,
)


@dataclass(frozen=True)
class TestResult:
    """What a network said of the test images, and how that scores; `choosing` is False where no choice may use it."""

    __test__ = False  # not a test class, whatever pytest makes of its name

    path: Path
    metrics: dict[str, Any]
    logits: Tensor  # float32 [N, 10]


def find_test(record: Record, store: Store | None = None) -> TestResult | None:
    """The test part of a record that was opened, from whichever store holds it; None where it never was."""
    for folder in (store or default_store()).folders:
        path = folder / record.id / "test"
        if (path / "metrics.json").is_file():
            check_sums(path, ["metrics.json", "logits.npz"])
            with np.load(path / "logits.npz") as arrays:
                logits = torch.from_numpy(arrays["logits"].astype(np.float32))
            return TestResult(path, read_json(path / "metrics.json"), logits)
    return None


def open_test(
    record: Record,
    *,
    root: str | Path | None = None,
    device: str = "auto",
    store: Store | None = None,
    not_choosing: bool = False,
) -> TestResult:
    """Score a record's weights on the test set and keep the result, write-once; a second call reads the first's.

    A record is opened if an experiment declares it `final`; any other needs `not_choosing`, which promises that nothing
    will be chosen by the result and keeps it out of the report. Every opening is a line of `openings.jsonl`.
    Raises `RecordError` for a record that may not be opened or has no weights, `DataError` without the test file."""
    store = store or default_store()
    declared = final_ids().get(record.id)
    if declared is None and not not_choosing:
        raise RecordError(
            f"record {record.id} is of no experiment that is declared final, so the test set stays shut:"
            " --not-choosing opens it for a look that nothing is chosen by"
        )
    with lock(store.writable / ".locks" / f"{record.id}.test"):
        if (there := find_test(record, store)) is not None:
            return there
        logits, said = score(record, root=root, device=device)
        said |= {"experiment": declared, "not_choosing": declared is None, "opened": now(), "commit": commit()}
        target = store.writable / record.id / "test"
        with folder_whole(target) as work:
            write_json(work / "metrics.json", said)
            np.savez_compressed(work / "logits.npz", logits=logits.numpy().astype(np.float16))
            write_sums(work)
        kept = ("opened", "experiment", "not_choosing", "commit", "accuracy", "n")
        append_line(openings_file(store), json.dumps({"record": record.id, **{name: said[name] for name in kept}}))
    result = find_test(record, store)
    assert result is not None
    return result


def score(record: Record, *, root: str | Path | None = None, device: str = "auto") -> tuple[Tensor, dict[str, Any]]:
    """Logits of a record's weights on the test images, and what they come to: counts, accuracy and its Wilson interval,
    also on the exact images alone where the data set has inexact ones, NLL and the calibration error."""
    where = resolve_device(device)
    model = record.load_model(where)
    images = load_test(record.config.data.dataset, root)
    data = test_fingerprint(record.config.data.dataset, root)
    logits = metrics.predict(model, images.images, precision=record.config.train.precision)
    logits = logits.half().float()  # as they are stored, so that what is read back scores the same
    correct = logits.argmax(1) == images.labels
    probabilities = logits.softmax(1)
    said: dict[str, Any] = {
        **_share("", correct),
        "nll": metrics.nll(probabilities, images.labels),
        "ece": metrics.ece(probabilities, images.labels),
        "fingerprint": {"stamp": data.stamp, "sha256": data.sha256, "verified": data.verified},
        "hardware": hardware(where),
    }
    inexact = inexact_indices(root, "test") if record.config.data.dataset == "cifar10" else []
    if inexact:
        exact = torch.ones(len(correct), dtype=torch.bool)
        exact[inexact] = False
        said |= _share("exact_", correct[exact])
    return logits, said


def _share(prefix: str, correct: Tensor) -> dict[str, Any]:
    hits, n = int(correct.sum()), len(correct)
    share = stats.proportion(hits, n)
    named = {"accuracy": share.value, "correct": hits, "n": n, "low": share.low, "high": share.high}
    return {f"{prefix}{name}": value for name, value in named.items()}


def openings_file(store: Store) -> Path:
    """The log of openings that belongs to a store's own records."""
    return (store.writable.parent if store.writable == local_folder() else store.writable) / "openings.jsonl"


def publish_openings(run_id: str) -> None:
    """Copy a record's lines from the local log of openings to the committed one."""
    committed = committed_folder() / "openings.jsonl"
    there = committed.read_text("utf-8").splitlines() if committed.is_file() else []
    local = local_folder().parent / "openings.jsonl"
    for line in local.read_text("utf-8").splitlines() if local.is_file() else []:
        if json.loads(line)["record"] == run_id and line not in there:
            append_line(committed, line)


def openings() -> list[dict[str, Any]]:
    """Every opening of the test set that is known, the committed ones first."""
    files = (committed_folder() / "openings.jsonl", local_folder().parent / "openings.jsonl")
    lines = [line for file in files if file.is_file() for line in file.read_text("utf-8").splitlines()]
    return [json.loads(line) for line in lines]
